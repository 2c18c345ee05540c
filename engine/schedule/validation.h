// Says what is wrong with a request before it is queued.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/model/step_batch.h"
#include "engine/schedule/request.h"

namespace augur {

// Bounds on what one request may ask for, so that a request's size bounds its cost.
inline constexpr int kMaxCompletions = 128;
inline constexpr int kMaxTopLogprobs = 1000;
inline constexpr int kMaxStopStrings = 64;
inline constexpr int kMaxStopStringBytes = 1024;

/// Names the first setting out of range, its value and what is accepted: "top_p is 1.5; accepted:
/// above 0, at most 1". Empty when all is well.
std::string validate_sampling(const SamplingParams& params, int64_t vocab_size);

/// The same for a whole request, whether it fits the model and the memory included.
/// `has_text`: a tokenizer is there, without which no stop string can be found.
std::string validate_request(const Request& request,
                             const ModelRunner::Limits& limits,
                             std::span<const int32_t> eos_token_ids,
                             bool has_text);

/// The tokens that end a completion, sorted: stop_token_ids, and end-of-text unless ignored.
std::vector<int32_t> stop_ids(const SamplingParams& params, std::span<const int32_t> eos_token_ids);

/// The most tokens, prompt and output, a request may come to: max_tokens or the context ends it.
int64_t max_length(const Request& request, const ModelRunner::Limits& limits);

/// KV positions a sequence of a request needs when it has `length` tokens. The last output token
/// is never computed, nor is a prompt's that is only scored.
int64_t max_positions(const Request& request, int64_t length);

}  // namespace augur
