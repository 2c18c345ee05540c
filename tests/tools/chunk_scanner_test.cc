#include "tools/serve_bench/chunk_scanner.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <random>
#include <vector>

namespace augur::serve_bench {
namespace {

namespace json = boost::json;

ScannedChunk scan(std::string_view text) {
  return ChunkScanner().scan(text);
}

TEST(ChunkScanner, SeesTheTextOfACompletion) {
  EXPECT_TRUE(scan(R"({"choices":[{"text":"a"}]})").has_content);
  EXPECT_TRUE(scan(R"({"choices":[{"text":""},{"text":" "}]})").has_content);
  EXPECT_FALSE(scan(R"({"choices":[{"text":""}]})").has_content);
  EXPECT_FALSE(scan(R"({"choices":[{"text":null}]})").has_content);
  EXPECT_FALSE(scan(R"({"choices":[]})").has_content);
}

TEST(ChunkScanner, DoesNotTakeARoleForContent) {
  EXPECT_FALSE(scan(R"({"choices":[{"delta":{"role":"assistant"}}]})").has_content);
  EXPECT_FALSE(scan(R"({"choices":[{"delta":{"role":"assistant","content":""}}]})").has_content);
  EXPECT_FALSE(scan(R"({"choices":[{"delta":{"tool_calls":[]}}]})").has_content);
}

TEST(ChunkScanner, SeesWhatChatStreams) {
  EXPECT_TRUE(scan(R"({"choices":[{"delta":{"content":"a"}}]})").has_content);
  EXPECT_TRUE(scan(R"({"choices":[{"delta":{"reasoning_content":"a"}}]})").has_content);
  EXPECT_TRUE(scan(R"({"choices":[{"delta":{"reasoning":"a"}}]})").has_content);
  EXPECT_TRUE(scan(R"({"choices":[{"delta":{"tool_calls":[{"index":0}]}}]})").has_content);
  EXPECT_TRUE(scan(R"({"choices":[{"message":{"content":"a"}}]})").has_content);
}

TEST(ChunkScanner, ReadsUsage) {
  const ScannedChunk chunk =
      scan(R"({"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34}})");
  EXPECT_EQ(chunk.prompt_tokens, 12);
  EXPECT_EQ(chunk.output_tokens, 34);
  EXPECT_EQ(scan(R"({"usage":null})").output_tokens, std::nullopt);
  EXPECT_EQ(scan(R"({"usage":{"completion_tokens":-1}})").output_tokens, std::nullopt);
  EXPECT_EQ(scan(R"({"usage":{"completion_tokens":"9"}})").output_tokens, std::nullopt);
}

TEST(ChunkScanner, ReadsErrorsOfEveryServer) {
  EXPECT_EQ(scan(R"({"error":{"message":"nested","code":400}})").error, "nested");
  EXPECT_EQ(scan(R"({"error":"Unauthorized"})").error, "Unauthorized");
  EXPECT_EQ(scan(R"({"object":"error","message":"flat"})").error, "flat");
  EXPECT_EQ(scan(R"({"error":{}})").error, "an error without a message");
  EXPECT_EQ(scan(R"({"error":null,"choices":[]})").error, "");
}

TEST(ChunkScanner, SeesThatTheServerCutARequestOff) {
  EXPECT_TRUE(scan(R"({"choices":[{"text":"","finish_reason":"abort"}]})").is_cut_off);
  EXPECT_TRUE(scan(R"({"choices":[{"text":"","finish_reason":"error"}]})").is_cut_off);
  EXPECT_FALSE(scan(R"({"choices":[{"text":"","finish_reason":"length"}]})").is_cut_off);
}

TEST(ChunkScanner, RefusesWhatIsNoObject) {
  for (const std::string_view text : {"", "[]", "3", "{", R"({"choices":)", R"({"a":1}x)", "\xff"})
    EXPECT_FALSE(scan(text).is_object) << text;
}

// The same, read in the plainest way.
ScannedChunk reference(std::string_view text) {
  ScannedChunk result;
  json::error_code error;
  const json::value root = json::parse(text, error);
  if (error || !root.is_object()) return result;
  result.is_object = true;
  const auto member = [](const json::value& parent, const char* key) -> json::value {
    if (!parent.is_object() || !parent.as_object().contains(key)) return nullptr;
    return parent.as_object().at(key);
  };
  const auto has_text = [&](const json::value& parent, const char* key) {
    const json::value value = member(parent, key);
    return value.is_string() && !value.as_string().empty();
  };
  const json::value choices = member(root, "choices");
  if (choices.is_array()) {
    for (const json::value& choice : choices.as_array()) {
      result.has_content |= has_text(choice, "text");
      for (const char* part : {"delta", "message"}) {
        const json::value message = member(choice, part);
        for (const char* key : {"content", "reasoning_content", "reasoning"})
          result.has_content |= has_text(message, key);
        const json::value calls = member(message, "tool_calls");
        result.has_content |= calls.is_array() && !calls.as_array().empty();
      }
      const json::value reason = member(choice, "finish_reason");
      result.is_cut_off |= reason == json::value("abort") || reason == json::value("error");
    }
  }
  const auto count = [&](const char* key) -> std::optional<int64_t> {
    const json::value value = member(member(root, "usage"), key);
    if (!value.is_int64() || value.as_int64() < 0) return std::nullopt;
    return value.as_int64();
  };
  result.prompt_tokens = count("prompt_tokens");
  result.output_tokens = count("completion_tokens");
  return result;
}

// A random document of the names and values that chunks have, in places where they belong and where
// they do not.
json::value random_value(std::mt19937& random, int depth) {
  constexpr std::array kKeys{"choices",          "text",  "delta",         "message",
                             "content",          "usage", "reasoning",     "tool_calls",
                             "prompt_tokens",    "id",    "finish_reason", "completion_tokens",
                             "reasoning_content"};
  const auto pick = [&](size_t bound) { return random() % bound; };
  switch (pick(depth > 0 ? 9 : 5)) {
    case 0:
      return nullptr;
    case 1:
      return static_cast<int64_t>(pick(5)) - 1;
    case 2:
      return pick(2) == 0 ? json::value("abort") : json::value("");
    case 3:
      return 0.5;
    case 4:
      return json::value("\"}]\\ \xC3\xA9\n");
    case 5:
    case 6: {
      json::array array;
      for (size_t i = pick(3); i > 0; --i) array.push_back(random_value(random, depth - 1));
      return array;
    }
    default: {
      json::object object;
      for (size_t i = pick(6); i > 0; --i)
        object[kKeys[pick(kKeys.size())]] = random_value(random, depth - 1);
      return object;
    }
  }
}

TEST(ChunkScanner, ReadsRandomDocumentsAsAPlainReaderDoes) {
  std::mt19937 random(1);
  ChunkScanner scanner;  // one for all, as in use
  int num_with_content = 0;
  for (int i = 0; i < 3000; ++i) {
    json::object root;
    root["choices"] = {{{"text", random_value(random, 1)},
                        {"delta", {{"content", random_value(random, 1)}}},
                        {"message", random_value(random, 3)},
                        {"finish_reason", random_value(random, 0)}},
                       random_value(random, 3)};
    if (i % 3 == 0) root["usage"] = random_value(random, 2);
    if (i % 7 == 0) root["choices"] = random_value(random, 3);
    std::string text = json::serialize(root);
    if (i % 5 == 0) text.resize(random() % (text.size() + 1));  // cut short
    const ScannedChunk expected = reference(text);
    const ScannedChunk scanned = scanner.scan(text);
    ASSERT_EQ(scanned.is_object, expected.is_object) << text;
    ASSERT_EQ(scanned.has_content, expected.has_content) << text;
    ASSERT_EQ(scanned.is_cut_off, expected.is_cut_off) << text;
    ASSERT_EQ(scanned.prompt_tokens, expected.prompt_tokens) << text;
    ASSERT_EQ(scanned.output_tokens, expected.output_tokens) << text;
    num_with_content += scanned.has_content;
  }
  EXPECT_GT(num_with_content, 300);
  EXPECT_LT(num_with_content, 2700);
}

}  // namespace
}  // namespace augur::serve_bench
