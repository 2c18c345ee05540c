#include "tools/score/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace augur::score {
namespace {

using testing::HasSubstr;

/// Why a line is refused; empty when it is not.
std::string problem(const std::string& line, Mode mode = Mode::kScore) {
  try {
    parse_document(line, 7, mode);
  } catch (const BadLine& bad) {
    return bad.what();
  }
  return "";
}

TEST(Document, KeepsTheIdAsItStood) {
  EXPECT_EQ(parse_document(R"({"id":"a\"b","text":"x"})", 7, Mode::kScore).id_json, R"("a\"b")");
  EXPECT_EQ(parse_document(R"({"id":12,"text":"x"})", 7, Mode::kScore).id_json, "12");
  EXPECT_EQ(parse_document(R"({"id":18446744073709551615,"text":"x"})", 7, Mode::kScore).id_json,
            "18446744073709551615");
}

TEST(Document, TakesTheLineNumberForAMissingId) {
  EXPECT_EQ(parse_document(R"({"text":"x"})", 7, Mode::kScore).id_json, "7");
  EXPECT_EQ(parse_document(R"({"id":null,"text":"x"})", 7, Mode::kScore).id_json, "7");
}

TEST(Document, ReadsEachKindOfInput) {
  const auto input = [](const std::string& line, Mode mode = Mode::kScore) {
    return parse_document(line, 7, mode).input;
  };
  EXPECT_EQ(std::get<TextInput>(input(R"({"text":"a\u00e9\ud83d\ude00","domain":1})")).text, "aé😀");
  const auto completion = std::get<CompletionInput>(input(R"({"prompt":"","completion":"b"})"));
  EXPECT_EQ(completion.prompt, "");
  EXPECT_EQ(completion.completion, "b");
  EXPECT_EQ(std::get<IdsInput>(input(R"({"input_ids":[0,5,2147483647]})")).ids,
            (std::vector<int32_t>{0, 5, 2147483647}));
  const auto chat = std::get<MessagesInput>(
      input(R"({"messages":[{"role":"user","content":"hi"}],"tools":[{"name":"f"}]})"));
  EXPECT_EQ(chat.messages.size(), 1u);
  EXPECT_EQ(chat.tools->size(), 1u);
  EXPECT_EQ(std::get<TextInput>(input(R"({"prompt":"p","completion":"c"})", Mode::kGenerate)).text,
            "p");
}

TEST(Document, SaysWhatIsWrongWithALine) {
  EXPECT_THAT(problem("{"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(problem("[]"), HasSubstr("the line is a list, accepted: an object"));
  EXPECT_THAT(problem("{}"), HasSubstr("has no input; accepted: \"text\""));
  EXPECT_THAT(problem(R"({"text":3})"), HasSubstr("\"text\" is a number, accepted: a string"));
  EXPECT_THAT(problem(R"({"text":""})"), HasSubstr("\"text\" is empty"));
  EXPECT_THAT(problem(R"({"text":"a","input_ids":[1]})"),
              HasSubstr("has both \"text\" and \"input_ids\""));
  EXPECT_THAT(problem(R"({"prompt":"a"})"), HasSubstr("no \"completion\""));
  EXPECT_THAT(problem(R"({"prompt":"a","completion":""})"), HasSubstr("\"completion\" is empty"));
  EXPECT_THAT(problem(R"({"id":[1],"text":"a"})"), HasSubstr("\"id\" is a list"));
  EXPECT_THAT(problem(R"({"id":1.5,"text":"a"})"), HasSubstr("\"id\" is a number"));
  EXPECT_THAT(problem(R"({"text":"a"} x)"), HasSubstr("is not valid JSON"));
}

TEST(Document, RefusesTokenIdsThatAreNone) {
  EXPECT_THAT(problem(R"({"input_ids":[]})"), HasSubstr("is empty"));
  EXPECT_THAT(problem(R"({"input_ids":"1"})"), HasSubstr("accepted: a list of token ids"));
  EXPECT_THAT(problem(R"({"input_ids":[1,-2]})"), HasSubstr("holds -2 at place 1"));
  EXPECT_THAT(problem(R"({"input_ids":[1.0]})"), HasSubstr("at place 0"));
  EXPECT_THAT(problem(R"({"input_ids":[4294967296]})"), HasSubstr("holds 4294967296"));
}

TEST(Document, RefusesMessagesWithoutRoles) {
  EXPECT_THAT(problem(R"({"messages":[]})"), HasSubstr("is empty"));
  EXPECT_THAT(problem(R"({"messages":[1]})"), HasSubstr("message 0 is a number"));
  EXPECT_THAT(problem(R"({"messages":[{"content":"a"}]})"), HasSubstr("message 0 has no \"role\""));
  EXPECT_THAT(problem(R"({"messages":[{"role":1}]})"), HasSubstr("\"role\" of message 0"));
  EXPECT_THAT(problem(R"({"messages":[{"role":"user"}],"tools":{}})"), HasSubstr("\"tools\""));
}

TEST(Document, RefusesBrokenText) {
  EXPECT_THAT(problem("{\"text\":\"a\xff\"}"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(problem("{\"text\":\"\xc3\"}"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(problem(R"({"text":"\ud800"})"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(problem(R"({"text":"\udc00\ud800"})"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(problem(std::string("{\"text\":\"a\0b\"}", 15)), HasSubstr("is not valid JSON"));
}

TEST(Document, RefusesDeepNestingWithoutRecursingIntoIt) {
  EXPECT_THAT(problem(R"({"text":"a","x":)" + std::string(100000, '[')),
              HasSubstr("is not valid JSON"));
  EXPECT_EQ(problem(R"({"text":"a","x":)" + std::string(60, '[') + std::string(60, ']') + "}"), "");
}

TEST(Document, TheIdIsKnownEvenOfABadLine) {
  try {
    parse_document(R"({"id":"d1","text":3})", 7, Mode::kScore);
    FAIL();
  } catch (const BadLine& bad) {
    EXPECT_EQ(bad.id_json(), "\"d1\"");
  }
}

}  // namespace
}  // namespace augur::score
