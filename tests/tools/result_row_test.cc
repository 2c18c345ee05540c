#include "tools/score/result_row.h"

#include <gtest/gtest.h>
#include <boost/json/parse.hpp>

#include <cmath>
#include <cstdlib>
#include <limits>

namespace augur::score {
namespace {

EncodedDocument document(size_t num_tokens, int64_t score_from = 1, bool has_prompt = false) {
  return {.ids = std::vector<int32_t>(num_tokens, 1),
          .score_from = score_from,
          .has_prompt = has_prompt};
}

const std::vector<ScoredToken> kTwoTokens = {
    {.token_id = 4, .logprob = -0.5f, .top = {{4, -0.5f}, {9, -1.25f}}},
    {.token_id = 7, .logprob = -1.5f, .top = {{2, -0.1f}, {3, -3e-5f}}}};

TEST(ScoreRow, GivesTokensSumAndPerplexity) {
  const ResultRow row = score_row("\"a\"", document(3), kTwoTokens, {});
  EXPECT_EQ(
      row.text,
      "{\"id\":\"a\",\"num_tokens\":3,\"logprob_sum\":-2,\"perplexity\":2.718281828459045}\n");
  EXPECT_EQ(row.totals,
            (Totals{.documents = 1, .prompt_tokens = 3, .scored_tokens = 2, .logprob_sum = -2}));
}

TEST(ScoreRow, GivesTheListsThatAreAskedFor) {
  const ResultRow row = score_row("1", document(3), kTwoTokens, {true, true});
  EXPECT_EQ(row.text,
            "{\"id\":1,\"num_tokens\":3,\"logprob_sum\":-2,\"perplexity\":2.718281828459045,"
            "\"token_logprobs\":[-0.5,-1.5],"
            "\"top_logprobs\":[[[4,-0.5],[9,-1.25]],[[2,-0.1],[3,-3e-05]]]}\n");
}

TEST(ScoreRow, CountsTheScoredTokensOfACompletion) {
  const ResultRow row = score_row("1", document(5, 3, true), kTwoTokens, {});
  EXPECT_NE(row.text.find("\"num_tokens\":5,\"num_scored_tokens\":2,"), std::string::npos);
}

TEST(ScoreRow, HasNoPerplexityForASingleToken) {
  const ResultRow row = score_row("1", document(1), {}, {true, true});
  EXPECT_EQ(row.text,
            "{\"id\":1,\"num_tokens\":1,\"logprob_sum\":0,\"perplexity\":null,"
            "\"token_logprobs\":[],\"top_logprobs\":[]}\n");
}

TEST(ScoreRow, RefusesWhatIsNotFinite) {
  for (const float bad : {std::nanf(""), -std::numeric_limits<float>::infinity()}) {
    const std::vector<ScoredToken> tokens = {{.token_id = 1, .logprob = bad}};
    EXPECT_THROW(score_row("1", document(2), tokens, {}), BadLine);
  }
}

/// The number after `key`, rounded exactly (Boost.JSON's parser may be a unit off).
double number_after(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  EXPECT_NE(at, std::string::npos) << key;
  return std::strtod(text.c_str() + at + key.size(), nullptr);
}

TEST(ScoreRow, FloatsReadBackTheSame) {
  float value = -1.0f;
  for (int i = 0; i < 1000; ++i) {
    value = std::nextafter(value * 1.01f, -1e9f);
    const std::vector<ScoredToken> tokens = {{.token_id = 1, .logprob = value}};
    const std::string row = score_row("1", document(2), tokens, {.token_logprobs = true}).text;
    ASSERT_EQ(static_cast<float>(number_after(row, "\"token_logprobs\":[")), value);
    ASSERT_EQ(number_after(row, "\"logprob_sum\":"), static_cast<double>(value));
  }
}

TEST(ScoreRow, TotalsCanBeReadFromIt) {
  for (const EncodedDocument& scored : {document(3), document(9, 7, true)}) {
    const ResultRow row = score_row("1", scored, kTwoTokens, {true, true});
    EXPECT_EQ(totals_of_row(boost::json::parse(row.text).as_object()), row.totals);
  }
  EXPECT_EQ(totals_of_row({}), std::nullopt);
}

TEST(GenerateRow, StandsFlatWithOneCompletion) {
  const RequestResult result{.id = "x",
                             .num_prompt_tokens = 4,
                             .completions = {{.text = "a\"\n\x01é",
                                              .output_ids = {4, 7},
                                              .logprobs = kTwoTokens,
                                              .finish_reason = FinishReason::kStop,
                                              .matched_stop = "."}}};
  const ResultRow row = generate_row("\"d\"", result, {.token_logprobs = true});
  EXPECT_EQ(row.text,
            "{\"id\":\"d\",\"text\":\"a\\\"\\n\\u0001é\",\"output_ids\":[4,7],"
            "\"finish_reason\":\"stop\",\"matched_stop\":\".\",\"token_logprobs\":[-0.5,-1.5],"
            "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2,\"total_tokens\":6}}\n");
  EXPECT_EQ(totals_of_row(boost::json::parse(row.text).as_object()), row.totals);
}

TEST(GenerateRow, ListsSeveralCompletions) {
  const RequestResult result{
      .num_prompt_tokens = 4,
      .completions = {{.text = "a", .output_ids = {4}, .finish_reason = FinishReason::kLength},
                      {.text = "", .output_ids = {}, .finish_reason = FinishReason::kStop}}};
  EXPECT_EQ(generate_row("1", result, {}).text,
            "{\"id\":1,\"choices\":["
            "{\"index\":0,\"text\":\"a\",\"output_ids\":[4],\"finish_reason\":\"length\"},"
            "{\"index\":1,\"text\":\"\",\"output_ids\":[],\"finish_reason\":\"stop\"}],"
            "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":1,\"total_tokens\":5}}\n");
}

TEST(ErrorRow, NamesLineIdAndReason) {
  EXPECT_EQ(error_row(12, "\"d\"", "has \"no\" input"),
            "{\"line\":12,\"id\":\"d\",\"error\":\"has \\\"no\\\" input\"}\n");
  EXPECT_EQ(error_row(12, "", "x"), "{\"line\":12,\"error\":\"x\"}\n");
}

TEST(TotalsJson, ReadsBackTheSame) {
  const Totals totals{5, 1, 100, 7, 95, -123.456};
  EXPECT_EQ(totals_from_json(totals_to_json(totals)), totals);
  EXPECT_EQ(totals_from_json({}), std::nullopt);
}

}  // namespace
}  // namespace augur::score
