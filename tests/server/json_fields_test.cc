#include "engine/server/json_fields.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <string>

#include "engine/server/api_error.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr int64_t kMaxValues = 1000;

std::string problem_of(std::string_view body, int64_t max_values = kMaxValues) {
  try {
    parse_json_object(body, max_values);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.type, "invalid_request_error");
    return error.message;
  }
  return "";
}

template <typename Read>
ApiError refusal(Read&& read) {
  try {
    read();
  } catch (const ApiError& error) {
    return error;
  }
  ADD_FAILURE() << "nothing was refused";
  return bad_request("", "");
}

TEST(JsonFieldsTest, RefusesWhatIsNoJsonObject) {
  EXPECT_NE(problem_of(""), "");
  for (const char* body : {"[]", "1", "null", "\"text\"", "true"}) {
    EXPECT_NE(problem_of(body).find("accepted: a JSON object"), std::string::npos) << body;
  }
  for (const char* body :
       {"{", "{}x", "{} {}", "{\"a\":}", "{'a':1}", "{\"a\":1,}", "nul", "\xEF\xBB\xBF{}",
        "{\"a\":NaN}", "{\"a\":Infinity}", "{\"a\":01}", "{\"a\":+1}", "{\"a\":\"\t\"}"}) {
    EXPECT_NE(problem_of(body).find("is not valid JSON"), std::string::npos) << body;
  }
  EXPECT_EQ(problem_of(" {\"a\": 1}\r\n"), "");
}

TEST(JsonFieldsTest, RefusesTextThatIsNotUtf8) {
  for (const char* text : {"\\ud800", "\\udc00", "\\ud800\\u0041", "\\udc00\\ud800", "\xC3", "\x80",
                           "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xC0\xAF"}) {
    EXPECT_NE(problem_of("{\"a\":\"" + std::string(text) + "\"}"), "") << text;
  }
  EXPECT_EQ(problem_of("{\"a\":\"\\ud83d\\ude00\\u0000\"}"), "");
}

TEST(JsonFieldsTest, RefusesNestingBeyondTheLimit) {
  const auto nested = [](int depth) {
    return "{\"a\":" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_EQ(problem_of(nested(kMaxJsonDepth)), "");
  EXPECT_NE(problem_of(nested(kMaxJsonDepth + 1)), "");
  EXPECT_NE(problem_of(std::string(100000, '['), 1 << 20), "");
}

TEST(JsonFieldsTest, CountsValuesBeforeItReadsThem) {
  const auto list = [](int size) {
    std::string body = "{\"a\":[";
    for (int i = 0; i < size; ++i) body += i == 0 ? "1" : ",1";
    return body + "]}";
  };
  EXPECT_EQ(problem_of(list(98), 100), "");
  EXPECT_NE(problem_of(list(99), 100).find("accepted: at most 100"), std::string::npos);
  // Commas inside of text are no values, escaped quotes do not end it.
  EXPECT_EQ(
      problem_of("{\"a\":\"" + std::string(200, ',') + "\\\"" + std::string(200, ',') + "\"}", 10),
      "");
}

TEST(JsonFieldsTest, ReadsWholeNumbersHoweverTheyAreWritten) {
  const IntegerRange range{-5, 1000};
  EXPECT_EQ(to_integer(json::parse("16"), "x", range), 16);
  EXPECT_EQ(to_integer(json::parse("16.0"), "x", range), 16);
  EXPECT_EQ(to_integer(json::parse("1e2"), "x", range), 100);
  EXPECT_EQ(to_integer(json::parse("-0"), "x", range), 0);
  for (const char* text : {"1.5", "-6", "1001", "1e308", "1e30", "-1e30", "9223372036854775808",
                           "18446744073709551616", "1e999", "true", "\"1\"", "[]", "{}", "null"}) {
    boost::system::error_code error;
    const json::value value = json::parse(text, error);
    if (error) continue;  // no value of that size can come this far
    const ApiError refused = refusal([&] { to_integer(value, "x.y", range); });
    EXPECT_EQ(refused.param, "x.y") << text;
    EXPECT_NE(refused.message.find("accepted: a whole number from -5 to 1000"), std::string::npos);
  }
  EXPECT_EQ(to_integer(json::parse("-9223372036854775808"), "x", {}), INT64_MIN);
}

TEST(JsonFieldsTest, ComparesNumbersAsTheFloatsTheyBecome) {
  const NumberRange above{.min = 0, .max = 1, .excludes_min = true};
  EXPECT_EQ(to_number(json::parse("1"), "x", above), 1);
  EXPECT_EQ(to_number(json::parse("0.5"), "x", above), 0.5f);
  for (const char* text : {"0", "1e-300", "-0.0", "1.1", "1e308", "18446744073709551615", "true",
                           "\"0.5\"", "null", "[0.5]"}) {
    const json::value value = json::parse(text);
    EXPECT_EQ(refusal([&] { to_number(value, "x", above); }).param, "x") << text;
  }
  EXPECT_EQ(to_number(json::parse("1e-300"), "x", {.min = 0, .max = 1}), 0);
}

TEST(JsonFieldsTest, TakesNullForAbsent) {
  const json::value body = json::parse(R"({"a":null})");
  const JsonFields fields(body.get_object());
  EXPECT_EQ(fields.find("a"), nullptr);
  EXPECT_FALSE(fields.integer("a", {}));
  EXPECT_FALSE(fields.boolean_or("a", false));
  EXPECT_FALSE(fields.string("a", 10));
  EXPECT_FALSE(fields.object("a"));
}

TEST(JsonFieldsTest, NamesNestedFieldsByPath) {
  const json::value body = json::parse(R"({"outer":{"inner":7}})");
  const JsonFields fields(body.get_object());
  const auto outer = fields.object("outer");
  ASSERT_TRUE(outer);
  EXPECT_EQ(refusal([&] { outer->boolean("inner"); }).param, "outer.inner");
}

TEST(JsonFieldsTest, RefusesKeysNobodyAskedFor) {
  const json::value body = json::parse(R"({"a":1,"surprise":2})");
  const JsonFields fields(body.get_object());
  fields.integer("a", {});
  fields.integer("b", {});
  const ApiError refused = refusal([&] { fields.refuse_unknown(); });
  EXPECT_EQ(refused.param, "surprise");
  EXPECT_EQ(refused.message, "surprise is not a known field; accepted: a, b");
}

TEST(JsonFieldsTest, RefusesUnsupportedFieldsOnlyWhereTheyAskForSomething) {
  const json::value body =
      json::parse(R"({"a":null,"b":false,"c":"","d":[],"e":{},"f":0,"g":true,"h":"x"})");
  const JsonFields fields(body.get_object());
  for (const std::string_view key : {"a", "b", "c", "d", "e", "absent"}) {
    fields.refuse(std::span(&key, 1));
  }
  for (const std::string_view key : {"f", "g", "h"}) {
    const ApiError refused = refusal([&] { fields.refuse(std::span(&key, 1)); });
    EXPECT_EQ(refused.param, key);
    EXPECT_EQ(refused.code, "unsupported_value");
  }
}

TEST(JsonFieldsTest, WritesNumbersAsPeopleDo) {
  EXPECT_EQ(describe(json::value(1.5)), "1.5");
  EXPECT_EQ(describe(json::value(1e308)), "1e+308");
  EXPECT_EQ(describe(json::value(-7)), "-7");
}

TEST(JsonFieldsTest, CutsLongTextInMessagesBetweenCharacters) {
  std::string long_text = "x";
  for (int i = 0; i < 100; ++i) long_text += "\u00e9";
  const json::value value(long_text);
  const std::string text = describe(value);
  EXPECT_LT(text.size(), 100u);
  EXPECT_TRUE(text.ends_with("\u00e9...\"")) << text;
}

}  // namespace
}  // namespace augur::server
