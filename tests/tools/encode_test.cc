#include "tools/score/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/score/feeder.h"

namespace augur::score {
namespace {

/// A letter is a token, "th" is one, too; texts begin with token 0 where special tokens are asked
/// for. A chat is its first role in brackets.
class PairCodec final : public TextCodec {
 public:
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const override {
    std::vector<int32_t> ids;
    if (add_special_tokens && begins_) ids.push_back(0);
    for (size_t i = 0; i < text.size(); ++i) {
      const bool is_pair = text.substr(i, 2) == "th";
      ids.push_back(is_pair ? 300 : static_cast<unsigned char>(text[i]));
      i += is_pair ? 1 : 0;
    }
    return ids;
  }
  std::string render_chat(const MessagesInput& chat, bool add_generation_prompt) const override {
    const std::string role(chat.messages.at(0).at("role").as_string());
    if (role == "robot") throw std::runtime_error("no robots");
    return "[" + role + "]" + (add_generation_prompt ? ">" : "");
  }
  bool begins_ = false;
};

class EncodeTest : public testing::Test {
 protected:
  EncodedDocument encode(const std::string& line, const EncodeSettings& settings = {}) {
    return encode_document(parse_document(line, 1, settings.mode), codec_, settings);
  }
  std::string problem(const std::string& line, const EncodeSettings& settings = {}) {
    try {
      encode(line, settings);
    } catch (const BadLine& bad) {
      return bad.what();
    }
    return "";
  }
  PairCodec codec_;
};

using Ids = std::vector<int32_t>;

TEST_F(EncodeTest, TextsGetTheTokenizersSpecialTokens) {
  EXPECT_EQ(encode(R"({"text":"ab"})").ids, (Ids{'a', 'b'}));
  codec_.begins_ = true;
  EXPECT_EQ(encode(R"({"text":"ab"})").ids, (Ids{0, 'a', 'b'}));
  EXPECT_EQ(encode(R"({"text":"ab"})").score_from, 1);
}

TEST_F(EncodeTest, ChatsGetThoseOfTheTemplateOnly) {
  codec_.begins_ = true;
  EXPECT_EQ(encode(R"({"messages":[{"role":"u"}]})").ids, (Ids{'[', 'u', ']'}));
  EXPECT_EQ(encode(R"({"messages":[{"role":"u"}]})", {.mode = Mode::kGenerate}).ids,
            (Ids{'[', 'u', ']', '>'}));
}

TEST_F(EncodeTest, WhatTheTemplateRefusesIsABadLine) {
  EXPECT_EQ(problem(R"({"messages":[{"role":"robot"}]})"),
            "the chat template refuses the messages: no robots");
}

TEST_F(EncodeTest, OnlyTheCompletionIsScored) {
  const EncodedDocument encoded = encode(R"({"prompt":"ab","completion":"cd"})");
  EXPECT_EQ(encoded.ids, (Ids{'a', 'b', 'c', 'd'}));
  EXPECT_EQ(encoded.score_from, 2);
  EXPECT_TRUE(encoded.has_prompt);
  EXPECT_EQ(encoded.num_scored(), 2);
}

TEST_F(EncodeTest, ATokenThatJoinsPromptAndCompletionIsScored) {
  const EncodedDocument encoded = encode(R"({"prompt":"at","completion":"he"})");
  EXPECT_EQ(encoded.ids, (Ids{'a', 300, 'e'}));
  EXPECT_EQ(encoded.score_from, 1);
}

TEST_F(EncodeTest, TheFirstTokenIsNeverScored) {
  EXPECT_EQ(encode(R"({"prompt":"","completion":"ab"})").score_from, 1);
  codec_.begins_ = true;
  EXPECT_EQ(encode(R"({"prompt":"","completion":"ab"})").score_from, 1);
  EXPECT_EQ(encode(R"({"prompt":"","completion":"ab"})").num_scored(), 2);
}

TEST_F(EncodeTest, CutsDocumentsWhereAsked) {
  const EncodeSettings settings{.max_tokens_per_document = 3};
  EXPECT_EQ(encode(R"({"text":"abcde"})", settings).ids, (Ids{'a', 'b', 'c'}));
  EXPECT_EQ(encode(R"({"text":"ab"})", settings).ids, (Ids{'a', 'b'}));
  EXPECT_EQ(encode(R"({"prompt":"ab","completion":"cde"})", settings).num_scored(), 1);
  EXPECT_THAT(problem(R"({"prompt":"abcd","completion":"e"})", settings),
              testing::HasSubstr("no token of the completion is left to score"));
  EXPECT_THAT(problem(R"({"prompt":"","completion":"e"})"),
              testing::HasSubstr("no token of the completion"));
}

TEST(SortWindow, PutsLongDocumentsFirstAndWhatNeedsNoModelBefore) {
  const auto document = [](int64_t sequence, size_t num_tokens) {
    return WorkItem{.sequence = sequence, .content = EncodedDocument{.ids = Ids(num_tokens, 1)}};
  };
  std::vector<WorkItem> window;
  window.push_back(document(0, 3));
  window.push_back(document(1, 9));
  window.push_back({.sequence = 2, .content = LineProblem{"bad"}});
  window.push_back(document(3, 3));
  sort_window(window);
  std::vector<int64_t> order;
  for (const WorkItem& item : window) order.push_back(item.sequence);
  EXPECT_EQ(order, (std::vector<int64_t>{2, 1, 0, 3}));
}

}  // namespace
}  // namespace augur::score
