#include "engine/server/sampling_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "engine/schedule/validation.h"
#include "engine/server/api_error.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr float kMaxTemperature = 100;
constexpr float kGreedyTemperature = 1e-5;  // below it the likeliest token is all there is
constexpr float kMaxRepetitionPenalty = 100;
constexpr NumberRange kPenaltyRange{.min = -2, .max = 2};
constexpr NumberRange kBiasRange{.min = -100, .max = 100};

// Settings of which an answer cannot be made here.
constexpr std::string_view kUnsupported[] = {
    "use_beam_search", "beam_width",         "allowed_token_ids",
    "bad_words",       "logits_processors",  "custom_logit_processor",
    "custom_params",   "watermark",          "watermarking",
    "guided_json",     "guided_regex",       "guided_choice",
    "guided_grammar",  "structured_outputs", "structural_tag",
    "regex",           "json_schema",        "ebnf",
    "stop_regex",
};

/// The first of them that is there.
template <typename T>
T first_of(const std::optional<T>& asked, const std::optional<double>& advised, T otherwise) {
  return asked ? *asked : advised ? static_cast<T>(*advised) : otherwise;
}

std::vector<std::string> read_stop(const JsonFields& fields, const ApiContext& context) {
  std::vector<std::string> stops;
  const json::value* value = fields.find("stop");
  if (value == nullptr) return stops;
  const std::string path = fields.path_of("stop");
  if (value->is_string()) {
    stops.emplace_back(to_string(*value, path, 1, kMaxStopStringBytes));
  } else if (const json::array* list = value->if_array()) {
    const int64_t max_stops = std::min<int64_t>(context.bounds.max_stop_strings, kMaxStopStrings);
    if (static_cast<int64_t>(list->size()) > max_stops) {
      fail_field(path, *value, fmt::format("at most {} strings", max_stops));
    }
    for (size_t i = 0; i < list->size(); ++i) {
      stops.emplace_back(to_string((*list)[i], item_path(path, i), 1, kMaxStopStringBytes));
    }
  } else {
    fail_field(path, *value, "a string or a list of strings");
  }
  if (!stops.empty() && context.tokenizer == nullptr) {
    throw bad_request(path,
                      "stop strings need a tokenizer, and this model has none; accepted: "
                      "stop_token_ids");
  }
  return stops;
}

std::vector<LogitBias> read_logit_bias(const JsonFields& fields, const ApiContext& context) {
  std::vector<LogitBias> biases;
  const json::value* value = fields.find("logit_bias");
  if (value == nullptr) return biases;
  const std::string path = fields.path_of("logit_bias");
  const json::object& object = to_object(*value, path);
  if (static_cast<int64_t>(object.size()) > context.bounds.max_logit_bias) {
    throw bad_request(path, fmt::format("{} has {} entries; accepted: at most {}", path,
                                        object.size(), context.bounds.max_logit_bias));
  }
  for (const auto& member : object) {
    const std::string_view key = member.key();
    int64_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    const bool is_whole = parsed.ec == std::errc() && parsed.ptr == key.data() + key.size();
    // Only one way to write each, so that no token has two biases.
    const bool is_plain = key == "0" || (!key.empty() && key[0] != '0');
    if (!is_whole || !is_plain || id < 0 || id >= context.limits.vocab_size) {
      throw bad_request(path,
                        fmt::format("{} has the key {}; accepted: token ids from 0 to {}", path,
                                    describe(json::string(key)), context.limits.vocab_size - 1));
    }
    const std::string member_path = fmt::format("{}.{}", path, key);
    biases.push_back(
        {static_cast<int32_t>(id), to_number(member.value(), member_path, kBiasRange)});
  }
  return biases;
}

void read_shape(const JsonFields& fields, const GenerationConfig& advised, SamplingParams& params) {
  const auto temperature = fields.number("temperature", {.min = 0, .max = kMaxTemperature});
  params.temperature = first_of(temperature, advised.temperature, 1.0f);
  if (params.temperature < kGreedyTemperature) params.temperature = 0;
  const auto top_p = fields.number("top_p", {.min = 0, .max = 1, .excludes_min = true});
  params.top_p = first_of(top_p, advised.top_p, 1.0f);
  const auto top_k = fields.integer("top_k", {-1, std::numeric_limits<int32_t>::max()});
  params.top_k = static_cast<int>(top_k ? *top_k : advised.top_k.value_or(0));
  params.min_p = first_of(fields.number("min_p", {.min = 0, .max = 1}), advised.min_p, 0.0f);
  const auto repetition = fields.number(
      "repetition_penalty", {.min = 0, .max = kMaxRepetitionPenalty, .excludes_min = true});
  params.repetition_penalty = first_of(repetition, advised.repetition_penalty, 1.0f);
  params.presence_penalty = fields.number("presence_penalty", kPenaltyRange).value_or(0);
  params.frequency_penalty = fields.number("frequency_penalty", kPenaltyRange).value_or(0);
}

int64_t kv_positions(const ModelRunner::Limits& limits) {
  return limits.num_kv_blocks * limits.block_size;
}

[[noreturn]] void fail_context(const std::string& path, std::string message) {
  throw bad_request(path, std::move(message), "context_length_exceeded");
}

}  // namespace

SamplingParams read_sampling(const JsonFields& fields,
                             const ApiContext& context,
                             ApiDialect dialect) {
  const bool is_native = dialect == ApiDialect::kNative;
  SamplingParams params;
  read_shape(fields, is_native ? GenerationConfig{} : context.generation, params);

  const int64_t max_n = std::min<int64_t>(context.bounds.max_n, kMaxCompletions);
  params.n = static_cast<int>(fields.integer("n", {1, max_n}).value_or(1));
  // The engine counts seeds without a sign; every one of 64 bits is another.
  if (const auto seed = fields.integer(is_native ? "sampling_seed" : "seed", {})) {
    params.seed = static_cast<uint64_t>(*seed);
  }
  params.min_tokens =
      fields.integer(is_native ? "min_new_tokens" : "min_tokens", {.min = 0}).value_or(0);
  params.stop = read_stop(fields, context);
  if (const json::value* ids = fields.find("stop_token_ids")) {
    params.stop_token_ids =
        read_token_ids(*ids, fields.path_of("stop_token_ids"), context.bounds.max_stop_token_ids,
                       context.limits.vocab_size);
  }
  params.logit_bias = read_logit_bias(fields, context);
  params.include_stop_in_output =
      fields.boolean_or(is_native ? "no_stop_trim" : "include_stop_str_in_output", false);
  params.ignore_eos = fields.boolean_or("ignore_eos", false);
  params.skip_special_tokens = fields.boolean_or("skip_special_tokens", true);
  // Both make no difference: tokens are never joined with spaces, and there is no beam.
  fields.boolean("spaces_between_special_tokens");
  fields.number("length_penalty", {.min = 1, .max = 1});
  fields.refuse(kUnsupported);
  return params;
}

void check_prompt_length(int64_t num_prompt_tokens,
                         int64_t min_output,
                         const ApiContext& context,
                         const std::string& path) {
  const int64_t max_context = context.limits.max_context;
  if (num_prompt_tokens > max_context - min_output) {
    fail_context(path, fmt::format("This model's maximum context length is {} tokens. However, "
                                   "your prompt resulted in {} tokens{}. Please reduce the length "
                                   "of the prompt.",
                                   max_context, num_prompt_tokens,
                                   min_output > 0 ? ", which leaves no room for an answer" : ""));
  }
  // The last token of a text is never computed.
  const int64_t num_positions = num_prompt_tokens + min_output - 1;
  if (num_positions > kv_positions(context.limits)) {
    fail_context(path, fmt::format("This server's KV cache holds {} tokens. However, your prompt "
                                   "resulted in {} tokens. Please reduce the length of the prompt.",
                                   kv_positions(context.limits), num_prompt_tokens));
  }
}

void set_max_tokens(Request& request, const MaxTokens& max_tokens, const ApiContext& context) {
  SamplingParams& params = request.sampling;
  const auto num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  const int64_t context_room = context.limits.max_context - num_prompt;
  const int64_t memory_room = kv_positions(context.limits) + 1 - num_prompt;
  params.max_tokens =
      max_tokens.asked.value_or(std::min({max_tokens.otherwise, context_room, memory_room}));
  if (params.max_tokens > context_room) {
    fail_context(max_tokens.path,
                 fmt::format("This model's maximum context length is {} tokens. However, you "
                             "requested {} tokens ({} in the prompt, {} in the completion). Please "
                             "reduce the length of the prompt or the completion.",
                             context.limits.max_context,
                             static_cast<uint64_t>(num_prompt) + params.max_tokens, num_prompt,
                             params.max_tokens));
  }
  if (params.max_tokens > 0 && params.max_tokens > memory_room) {
    fail_context(max_tokens.path,
                 fmt::format("This server's KV cache holds {} tokens. However, you requested "
                             "{} tokens ({} in the prompt, {} in the completion). Please "
                             "reduce the length of the prompt or the completion.",
                             kv_positions(context.limits), num_prompt + params.max_tokens,
                             num_prompt, params.max_tokens));
  }
  if (params.min_tokens > params.max_tokens) {
    throw bad_request(max_tokens.min_path,
                      fmt::format("{} is {}; accepted: 0 to {}, which is {}", max_tokens.min_path,
                                  params.min_tokens, max_tokens.path, params.max_tokens));
  }
}

int64_t max_alternatives(const ApiContext& context) {
  return std::max<int64_t>(0,
                           std::min({context.bounds.max_logprobs, int64_t{context.limits.max_top_n},
                                     int64_t{kMaxTopLogprobs}, context.limits.vocab_size}));
}

std::vector<int32_t> read_token_ids(const json::value& value,
                                    const std::string& path,
                                    int64_t max_ids,
                                    int64_t vocab_size) {
  const json::array* list = value.if_array();
  if (list == nullptr) fail_field(path, value, "a list of token ids");
  if (static_cast<int64_t>(list->size()) > max_ids) {
    fail_field(path, value, fmt::format("at most {} token ids", max_ids));
  }
  std::vector<int32_t> ids;
  ids.reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    // The path is text, made only where it is needed.
    const int64_t* id = (*list)[i].if_int64();
    const bool is_id = id != nullptr && *id >= 0 && *id < vocab_size;
    ids.push_back(static_cast<int32_t>(
        is_id ? *id : to_integer((*list)[i], item_path(path, i), {0, vocab_size - 1})));
  }
  return ids;
}

void check_request(const Request& request, const ApiContext& context) {
  std::string problem = validate_request(request, context.limits, context.eos_token_ids,
                                         context.tokenizer != nullptr);
  if (!problem.empty()) throw bad_request("", std::move(problem));
}

}  // namespace augur::server
