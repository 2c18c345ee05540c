// What a caller asks of the engine, and what it gets back.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/step_batch.h"
#include "kernels/sampling.h"

namespace augur {

/// Settings of one request. validate_sampling (validation.h) says what is out of range.
struct SamplingParams {
  int64_t max_tokens = 16;  // 0: the prompt is computed, and scored if asked
  int64_t min_tokens = 0;   // before so many, nothing but a full context ends the text
  int n = 1;                // completions of one prompt
  float temperature = 1;    // 0: greedy
  int top_k = 0;            // 0 or -1: all
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::optional<uint64_t> seed;  // completion i draws from seed + i; absent: from the engine's own
  std::vector<LogitBias> logit_bias;
  std::vector<std::string> stop;  // text ends before the first of these to be complete
  std::vector<int32_t> stop_token_ids;
  bool include_stop_in_output = false;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  int logprobs = -1;  // -1: none; 0: of the chosen tokens; K: and the K likeliest
};

enum class FinishReason : uint8_t {
  kNone,
  kStop,    // a stop string, a stop token, or end-of-text
  kLength,  // max_tokens, or the context is full
  kAborted,
  kFailed,  // the model could not be run on it: RequestResult::error says why
};

/// A token's log-probability under the model's own distribution (before temperature and
/// penalties), and the likeliest tokens in its place where asked for.
struct ScoredToken {
  int32_t token_id = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;
};

/// News of one completion: sent once per step in which it got a token. Joined, the updates of a
/// completion are what RequestResult holds, but for text still held back when it was aborted.
struct RequestUpdate {
  int completion_idx = 0;
  std::string text;                   // text that became final
  std::vector<int32_t> token_ids;     // tokens of this step
  std::vector<ScoredToken> logprobs;  // of those tokens, when asked for
  FinishReason finish_reason = FinishReason::kNone;
  std::string matched_stop;  // the stop string that ended it, if one did
};

/// The tokens include the one that ended the text: a stop token, end-of-text, or that which
/// completed a stop string. The text does not, unless include_stop_in_output.
struct Completion {
  std::string text;
  std::vector<int32_t> output_ids;
  std::vector<ScoredToken> logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  std::string matched_stop;
};

/// When a request came to what. A time is that of the epoch until it is reached.
struct RequestTimes {
  using Time = std::chrono::steady_clock::time_point;
  Time submitted;
  Time started;      // the first step that computes some of it is launched
  Time first_token;  // the step that sampled the first token of any completion has ended
  Time finished;
};

/// Told when the first step that computes some of a request has been launched.
struct RequestStart {
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // of the prompt, whose keys and values were there already
  RequestTimes times;
};

struct RequestResult {
  std::string id;
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // as told at the start; not counted again after a preemption
  RequestTimes times;
  std::vector<ScoredToken>
      prompt_logprobs;                  // of prompt tokens score_from .. end, when score_prompt
  std::vector<Completion> completions;  // n of them; empty when max_tokens is 0
  std::string error;                    // why it failed, with what there was until then; else empty
};

struct Request {
  std::string id;                   // no other live request has it
  std::vector<int32_t> prompt_ids;  // at least one
  SamplingParams sampling;
  bool score_prompt = false;    // log-probabilities of the prompt's own tokens
  int64_t score_from = 1;       // the first prompt token scored, at least 1
  int prompt_top_logprobs = 0;  // alternatives reported beside each
  int64_t priority = 0;         // lower is served earlier, where the policy says so
  std::string tenant;           // whose turn it uses up, where tenants share fairly
  // Keys and values are reused between requests of the same salt only (and within a request).
  std::string cache_salt;
  std::function<void(const RequestStart&)> on_started;  // may be empty; called at most once
  std::function<void(const RequestUpdate&)> on_update;  // may be empty
  std::function<void(RequestResult&&)> on_finished;     // called once, also when aborted
};

}  // namespace augur
