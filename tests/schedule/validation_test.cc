#include "engine/schedule/validation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace augur {
namespace {

constexpr int64_t kVocab = 100;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::string error_of(const std::function<void(SamplingParams&)>& change) {
  SamplingParams params;
  change(params);
  return validate_sampling(params, kVocab);
}

TEST(ValidateSamplingTest, AcceptsTheDefaultsAndTheEdgesOfEachRange) {
  EXPECT_EQ(error_of([](auto& p) {}), "");
  EXPECT_EQ(error_of([](auto& p) {
              p.max_tokens = 0;
              p.n = kMaxCompletions;
              p.temperature = 0;
              p.top_k = -1;
              p.top_p = 1e-6f;
              p.min_p = 1;
              p.repetition_penalty = 1e-6f;
              p.presence_penalty = -2;
              p.frequency_penalty = 2;
              p.logprobs = kVocab;
              p.stop_token_ids = {0, kVocab - 1};
              p.stop = {std::string(kMaxStopStringBytes, 'x'), "\xF0\x9F\x98\x80", "\xEF\xBF\xBD"};
              p.logit_bias = {{0, -kInfinity}, {kVocab - 1, 100}};
            }),
            "");
}

TEST(ValidateSamplingTest, NamesTheSettingItsValueAndWhatIsAccepted) {
  EXPECT_EQ(error_of([](auto& p) { p.max_tokens = -1; }), "max_tokens is -1; accepted: 0 or more");
  EXPECT_EQ(error_of([](auto& p) { p.min_tokens = 17; }),
            "min_tokens is 17; accepted: 0 to max_tokens, which is 16");
  EXPECT_EQ(error_of([](auto& p) { p.n = 0; }), "n is 0; accepted: 1 to 128");
  EXPECT_EQ(error_of([](auto& p) { p.n = 129; }), "n is 129; accepted: 1 to 128");
  EXPECT_EQ(error_of([](auto& p) { p.temperature = -0.5f; }),
            "temperature is -0.5; accepted: 0 (greedy) or more, finite");
  EXPECT_EQ(error_of([](auto& p) { p.top_k = -2; }),
            "top_k is -2; accepted: 1 or more; 0 or -1 for all tokens");
  EXPECT_EQ(error_of([](auto& p) { p.top_p = 1.5f; }),
            "top_p is 1.5; accepted: above 0, at most 1");
  EXPECT_EQ(error_of([](auto& p) { p.min_p = 2; }), "min_p is 2; accepted: 0 to 1");
  EXPECT_EQ(error_of([](auto& p) { p.repetition_penalty = 0; }),
            "repetition_penalty is 0; accepted: above 0, finite");
  EXPECT_EQ(error_of([](auto& p) { p.presence_penalty = 2.5f; }),
            "presence_penalty is 2.5; accepted: -2 to 2");
  EXPECT_EQ(error_of([](auto& p) { p.frequency_penalty = -2.5f; }),
            "frequency_penalty is -2.5; accepted: -2 to 2");
  EXPECT_EQ(error_of([](auto& p) { p.logprobs = 101; }),
            "logprobs is 101; accepted: -1 (none) to 100");
  EXPECT_EQ(error_of([](auto& p) {
              p.stop_token_ids = {1, 100};
            }),
            "stop_token_ids[1] is 100; accepted: 0 to 99");
  EXPECT_EQ(error_of([](auto& p) {
              p.logit_bias = {{-1, 0}};
            }),
            "logit_bias[0].token_id is -1; accepted: 0 to 99");
  EXPECT_EQ(error_of([](auto& p) {
              p.logit_bias = {{0, kInfinity}};
            }),
            "logit_bias[0].bias is inf; accepted: a finite number or -inf");
  EXPECT_EQ(error_of([](auto& p) {
              p.stop = {"ok", ""};
            }),
            "length of stop[1] is 0 bytes; accepted: 1 to 1024 bytes");
  EXPECT_EQ(error_of([](auto& p) { p.stop = {std::string(kMaxStopStringBytes + 1, 'x')}; }),
            "length of stop[0] is 1025 bytes; accepted: 1 to 1024 bytes");
  EXPECT_EQ(error_of([](auto& p) { p.stop.assign(65, "x"); }),
            "number of stop strings is 65; accepted: at most 64");
}

TEST(ValidateSamplingTest, RefusesNan) {
  EXPECT_NE(error_of([](auto& p) { p.temperature = kNan; }), "");
  EXPECT_NE(error_of([](auto& p) { p.temperature = kInfinity; }), "");
  EXPECT_NE(error_of([](auto& p) { p.top_p = kNan; }), "");
  EXPECT_NE(error_of([](auto& p) { p.min_p = kNan; }), "");
  EXPECT_NE(error_of([](auto& p) { p.repetition_penalty = kNan; }), "");
  EXPECT_NE(error_of([](auto& p) { p.presence_penalty = kNan; }), "");
  EXPECT_NE(error_of([](auto& p) { p.frequency_penalty = kNan; }), "");
  EXPECT_NE(error_of([](auto& p) { p.logit_bias = {{0, kNan}}; }), "");
}

TEST(ValidateSamplingTest, RefusesAStopStringThatIsNotUtf8) {
  for (const char* text : {"\x80", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "a\xE2\x82",
                           "\xF4\x90\x80\x80", "\xF0\x80\x80\x80", "\xFF", "\xC3\xA9\xA9"}) {
    EXPECT_EQ(error_of([&](auto& p) { p.stop = {text}; }), "stop[0] is not well-formed UTF-8");
  }
}

class ValidateRequestTest : public ::testing::Test {
 protected:
  std::string error(bool has_text = true) const {
    return validate_request(request_, limits_, eos_token_ids_, has_text);
  }

  ModelRunner::Limits limits_{.max_tokens = 8,
                              .max_seqs = 4,
                              .max_context = 40,
                              .num_kv_blocks = 8,
                              .block_size = 4,
                              .vocab_size = 5};
  std::vector<int32_t> eos_token_ids_{4};
  Request request_{.id = "r", .prompt_ids = {1, 2, 3}};
};

TEST_F(ValidateRequestTest, AcceptsAPlainRequest) {
  EXPECT_EQ(error(), "");
}

TEST_F(ValidateRequestTest, RefusesAnEmptyPromptAndForeignTokens) {
  request_.prompt_ids = {};
  EXPECT_EQ(error(), "the prompt has no token; accepted: at least 1");
  request_.prompt_ids = {1, 5};
  EXPECT_EQ(error(), "prompt_ids[1] is 5; accepted: 0 to 4");
  request_.prompt_ids = {-1};
  EXPECT_EQ(error(), "prompt_ids[0] is -1; accepted: 0 to 4");
}

TEST_F(ValidateRequestTest, RefusesAPromptLongerThanTheContext) {
  limits_.num_kv_blocks = 1000;
  request_.prompt_ids.assign(40, 1);
  EXPECT_EQ(error(),
            "the prompt has 40 tokens; accepted: at most 39 of a context of 40, to leave room for "
            "an output token");
  request_.sampling.max_tokens = 0;
  EXPECT_EQ(error(), "");
  request_.prompt_ids.assign(41, 1);
  EXPECT_EQ(error(), "the prompt has 41 tokens; accepted: at most 40 of a context of 40");
}

TEST_F(ValidateRequestTest, RefusesWhatCanNeverFitTheCache) {
  request_.prompt_ids.assign(17, 1);  // 17 + 16 - 1 positions make 8 blocks of 4
  EXPECT_EQ(error(), "");
  request_.sampling.max_tokens = 17;
  EXPECT_EQ(error(),
            "17 prompt tokens and max_tokens 17 may need 9 KV blocks of 4 positions; there are 8. "
            "Accepted: a shorter prompt, a lower max_tokens, or a larger KV cache");
  request_.sampling.max_tokens = std::numeric_limits<int64_t>::max();
  EXPECT_NE(error(), "");
  limits_.num_kv_blocks = 10;  // the whole context
  EXPECT_EQ(error(), "");
}

TEST_F(ValidateRequestTest, ChecksScoring) {
  request_.score_from = 0;
  EXPECT_EQ(error(), "");  // not read
  request_.score_prompt = true;
  EXPECT_EQ(error(), "score_from is 0; accepted: 1 to the number of prompt tokens, 3");
  request_.score_from = 4;
  EXPECT_EQ(error(), "score_from is 4; accepted: 1 to the number of prompt tokens, 3");
  request_.score_from = 3;
  EXPECT_EQ(error(), "");
  request_.prompt_top_logprobs = 6;
  EXPECT_EQ(error(), "prompt_top_logprobs is 6; accepted: 0 to 5");
}

TEST_F(ValidateRequestTest, StopStringsNeedText) {
  request_.sampling.stop = {"x"};
  EXPECT_EQ(error(), "");
  EXPECT_EQ(error(/*has_text=*/false),
            "stop strings need a tokenizer, and there is none; accepted: stop_token_ids");
}

TEST_F(ValidateRequestTest, SomeTokenMustBeLeftToDraw) {
  for (int32_t id = 0; id < 4; ++id) request_.sampling.logit_bias.push_back({id, -kInfinity});
  EXPECT_EQ(error(), "");  // end-of-text is left
  request_.sampling.min_tokens = 1;
  EXPECT_EQ(error(),
            "logit_bias, and end-of-text and stop tokens before min_tokens, forbid all 5 tokens; "
            "accepted: at least one allowed");
  request_.sampling.ignore_eos = true;
  EXPECT_EQ(error(), "");
  request_.sampling.stop_token_ids = {4};
  EXPECT_NE(error(), "");
}

}  // namespace
}  // namespace augur
