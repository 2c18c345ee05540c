#include "engine/schedule/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "engine/text/utf8.h"

namespace augur {
namespace {

template <typename T>
std::string out_of_range(std::string_view name, const T& value, std::string_view accepted) {
  return fmt::format("{} is {}; accepted: {}", name, value, accepted);
}

bool is_within(float value, float low, float high) {
  return value >= low && value <= high;
}

std::string check_token_id(std::string_view name, int64_t idx, int32_t id, int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return {};
  return out_of_range(fmt::format("{}[{}]", name, idx), id, fmt::format("0 to {}", vocab_size - 1));
}

bool is_utf8(const std::string& text) {
  std::string repaired;
  return valid_utf8_or_repaired(text, repaired).data() == text.data();
}

std::string check_stop_strings(const std::vector<std::string>& stops) {
  if (stops.size() > kMaxStopStrings) {
    return out_of_range("number of stop strings", stops.size(),
                        fmt::format("at most {}", kMaxStopStrings));
  }
  for (size_t i = 0; i < stops.size(); ++i) {
    const std::string name = fmt::format("stop[{}]", i);
    if (stops[i].empty() || stops[i].size() > kMaxStopStringBytes) {
      return out_of_range("length of " + name, fmt::format("{} bytes", stops[i].size()),
                          fmt::format("1 to {} bytes", kMaxStopStringBytes));
    }
    if (!is_utf8(stops[i])) return name + " is not well-formed UTF-8";
  }
  return {};
}

std::string check_logit_bias(const std::vector<LogitBias>& biases, int64_t vocab_size) {
  for (size_t i = 0; i < biases.size(); ++i) {
    const std::string id_name = fmt::format("logit_bias[{}].token_id", i);
    if (biases[i].token_id < 0 || biases[i].token_id >= vocab_size) {
      return out_of_range(id_name, biases[i].token_id, fmt::format("0 to {}", vocab_size - 1));
    }
    const float bias = biases[i].bias;
    if (std::isnan(bias) || bias == std::numeric_limits<float>::infinity()) {
      return out_of_range(fmt::format("logit_bias[{}].bias", i), bias, "a finite number or -inf");
    }
  }
  return {};
}

/// A token has to be left to draw.
std::string check_some_token_allowed(const SamplingParams& params,
                                     std::span<const int32_t> eos_token_ids,
                                     int64_t vocab_size) {
  const size_t most =
      params.logit_bias.size() + params.stop_token_ids.size() + eos_token_ids.size();
  if (most < static_cast<size_t>(vocab_size)) return {};  // the usual case, found without sorting
  std::vector<int32_t> forbidden;
  for (const LogitBias& bias : params.logit_bias) {
    if (std::isinf(bias.bias)) forbidden.push_back(bias.token_id);
  }
  if (params.min_tokens > 0) {
    const std::vector<int32_t> ids = stop_ids(params, eos_token_ids);
    forbidden.insert(forbidden.end(), ids.begin(), ids.end());
  }
  std::sort(forbidden.begin(), forbidden.end());
  const auto end = std::unique(forbidden.begin(), forbidden.end());
  if (end - forbidden.begin() < vocab_size) return {};
  return fmt::format(
      "logit_bias, and end-of-text and stop tokens before min_tokens, forbid all {} tokens; "
      "accepted: at least one allowed",
      vocab_size);
}

}  // namespace

std::string validate_sampling(const SamplingParams& params, int64_t vocab_size) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const int64_t max_top = std::min<int64_t>(kMaxTopLogprobs, vocab_size);
  if (params.max_tokens < 0) return out_of_range("max_tokens", params.max_tokens, "0 or more");
  if (params.min_tokens < 0 || params.min_tokens > params.max_tokens) {
    return out_of_range("min_tokens", params.min_tokens,
                        fmt::format("0 to max_tokens, which is {}", params.max_tokens));
  }
  if (params.n < 1 || params.n > kMaxCompletions) {
    return out_of_range("n", params.n, fmt::format("1 to {}", kMaxCompletions));
  }
  // Comparisons are written so that NaN fails them.
  if (!(params.temperature >= 0 && params.temperature < kInfinity)) {
    return out_of_range("temperature", params.temperature, "0 (greedy) or more, finite");
  }
  if (params.top_k < -1) {
    return out_of_range("top_k", params.top_k, "1 or more; 0 or -1 for all tokens");
  }
  if (!(params.top_p > 0 && params.top_p <= 1)) {
    return out_of_range("top_p", params.top_p, "above 0, at most 1");
  }
  if (!is_within(params.min_p, 0, 1)) return out_of_range("min_p", params.min_p, "0 to 1");
  if (!(params.repetition_penalty > 0 && params.repetition_penalty < kInfinity)) {
    return out_of_range("repetition_penalty", params.repetition_penalty, "above 0, finite");
  }
  if (!is_within(params.presence_penalty, -2, 2)) {
    return out_of_range("presence_penalty", params.presence_penalty, "-2 to 2");
  }
  if (!is_within(params.frequency_penalty, -2, 2)) {
    return out_of_range("frequency_penalty", params.frequency_penalty, "-2 to 2");
  }
  if (params.logprobs < -1 || params.logprobs > max_top) {
    return out_of_range("logprobs", params.logprobs, fmt::format("-1 (none) to {}", max_top));
  }
  for (size_t i = 0; i < params.stop_token_ids.size(); ++i) {
    std::string error = check_token_id("stop_token_ids", static_cast<int64_t>(i),
                                       params.stop_token_ids[i], vocab_size);
    if (!error.empty()) return error;
  }
  if (std::string error = check_stop_strings(params.stop); !error.empty()) return error;
  return check_logit_bias(params.logit_bias, vocab_size);
}

std::string validate_request(const Request& request,
                             const ModelRunner::Limits& limits,
                             std::span<const int32_t> eos_token_ids,
                             bool has_text) {
  const SamplingParams& sampling = request.sampling;
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  if (num_prompt == 0) return "the prompt has no token; accepted: at least 1";
  if (std::string error = validate_sampling(sampling, limits.vocab_size); !error.empty()) {
    return error;
  }
  if (std::string error = check_some_token_allowed(sampling, eos_token_ids, limits.vocab_size);
      !error.empty()) {
    return error;
  }
  if (!has_text && !sampling.stop.empty()) {
    return "stop strings need a tokenizer, and there is none; accepted: stop_token_ids";
  }
  // With room for one token at least, when some are wanted.
  const int64_t longest = limits.max_context - (sampling.max_tokens > 0 ? 1 : 0);
  if (num_prompt > longest) {
    return fmt::format("the prompt has {} tokens; accepted: at most {} of a context of {}{}",
                       num_prompt, longest, limits.max_context,
                       sampling.max_tokens > 0 ? ", to leave room for an output token" : "");
  }
  for (int64_t i = 0; i < num_prompt; ++i) {
    std::string error = check_token_id("prompt_ids", i, request.prompt_ids[i], limits.vocab_size);
    if (!error.empty()) return error;
  }
  if (request.score_prompt) {
    if (request.score_from < 1 || request.score_from > num_prompt) {
      return out_of_range("score_from", request.score_from,
                          fmt::format("1 to the number of prompt tokens, {}", num_prompt));
    }
    const int64_t max_top = std::min<int64_t>(kMaxTopLogprobs, limits.vocab_size);
    if (request.prompt_top_logprobs < 0 || request.prompt_top_logprobs > max_top) {
      return out_of_range("prompt_top_logprobs", request.prompt_top_logprobs,
                          fmt::format("0 to {}", max_top));
    }
  }
  const int64_t num_positions = max_positions(request, max_length(request, limits));
  const int64_t num_blocks = (num_positions + limits.block_size - 1) / limits.block_size;
  if (num_blocks > limits.num_kv_blocks) {
    return fmt::format(
        "{} prompt tokens and max_tokens {} may need {} KV blocks of {} positions; there are {}. "
        "Accepted: a shorter prompt, a lower max_tokens, or a larger KV cache",
        num_prompt, sampling.max_tokens, num_blocks, limits.block_size, limits.num_kv_blocks);
  }
  return {};
}

std::vector<int32_t> stop_ids(const SamplingParams& params,
                              std::span<const int32_t> eos_token_ids) {
  std::vector<int32_t> ids = params.stop_token_ids;
  if (!params.ignore_eos) ids.insert(ids.end(), eos_token_ids.begin(), eos_token_ids.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

int64_t max_length(const Request& request, const ModelRunner::Limits& limits) {
  const int64_t num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  return num_prompt + std::min(request.sampling.max_tokens, limits.max_context - num_prompt);
}

int64_t max_positions(const Request& request, int64_t length) {
  if (request.sampling.max_tokens > 0) return length - 1;
  return std::max<int64_t>(length - 1, 1);  // a prompt of one token is computed all the same
}

}  // namespace augur
