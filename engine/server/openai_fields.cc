#include "engine/server/openai_fields.h"

#include <algorithm>

#include "engine/server/api_error.h"
#include "engine/server/prompt_fields.h"
#include "engine/server/sampling_fields.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxSaltBytes = 256;

// Features of other servers that change an answer, and which we do not have.
constexpr std::string_view kUnsupported[] = {
    "prompt_logprobs",
    "logprob_token_ids",
    "truncate_prompt_tokens",
    "prompt_embeds",
    "input_embeds",
    "kv_transfer_params",
    "lora_path",
    "return_hidden_states",
    "return_routed_experts",
    "return_tokens_as_token_ids",
    "image_data",
    "mm_processor_kwargs",
};

// Labels for whoever keeps accounts; they change no answer.
void read_labels(const JsonFields& fields, Request& request) {
  request.tenant = fields.string("user", kMaxNameBytes).value_or("");
  fields.string("safety_identifier", kMaxNameBytes);
  fields.string("prompt_cache_key", kMaxNameBytes);
  fields.object("metadata");
  const auto tier = fields.string("service_tier", kMaxNameBytes);
  if (tier && *tier != "auto" && *tier != "default") {
    fail_unsupported(fields.path_of("service_tier"), json::string(*tier), "\"auto\", \"default\"");
  }
  const json::value* format = fields.find("response_format");
  if (format == nullptr) return;
  const std::string path = fields.path_of("response_format");
  const json::value* type = to_object(*format, path).if_contains("type");
  if (type == nullptr || !type->is_string()) {
    fail_field(path + ".type", type == nullptr ? json::value() : *type, "\"text\"");
  }
  if (type->get_string() != "text") fail_unsupported(path + ".type", *type, "\"text\"");
}

void read_stream(const JsonFields& fields, AnswerSettings& settings) {
  settings.is_streamed = fields.boolean_or("stream", false);
  const auto options = fields.object("stream_options");
  if (!options) return;
  if (!settings.is_streamed) {
    throw bad_request("stream_options",
                      "stream_options is given, and stream is not true; "
                      "accepted: stream_options with stream true");
  }
  settings.has_usage_chunk = options->boolean_or("include_usage", false);
  // As elsewhere, it adds to include_usage and does nothing without.
  settings.has_usage_always =
      options->boolean_or("continuous_usage_stats", false) && settings.has_usage_chunk;
  // Padding against guesses from the length of chunks: nothing is padded.
  options->boolean("include_obfuscation");
}

std::vector<int32_t> without(const std::vector<int32_t>& ids, const std::vector<int32_t>& others) {
  std::vector<int32_t> rest;
  for (const int32_t id : ids) {
    if (std::find(others.begin(), others.end(), id) == others.end()) rest.push_back(id);
  }
  return rest;
}

}  // namespace

void read_scheduling(const JsonFields& fields, Request& request) {
  request.priority = fields.integer("priority", {}).value_or(0);
  request.cache_salt = fields.string("cache_salt", kMaxSaltBytes, 1).value_or("");
}

OpenAiFields read_openai_fields(const JsonFields& fields,
                                const ApiContext& context,
                                const CallIdentity& identity) {
  OpenAiFields result;
  check_model(fields, context);
  read_labels(fields, result.request);
  fields.refuse(kUnsupported);
  read_scheduling(fields, result.request);
  result.request.sampling = read_sampling(fields, context, ApiDialect::kOpenAi);

  AnswerSettings& settings = result.settings;
  const SamplingParams& sampling = result.request.sampling;
  settings.identity = identity;
  settings.model = context.model_names.front();
  settings.fingerprint = context.fingerprint;
  settings.tokenizer = context.tokenizer;
  read_stream(fields, settings);
  settings.returns_token_ids = fields.boolean_or("return_token_ids", false);
  settings.skips_special_tokens = sampling.skip_special_tokens;
  settings.n = sampling.n;
  settings.named_stop_ids = sampling.ignore_eos
                                ? sampling.stop_token_ids
                                : without(sampling.stop_token_ids, context.eos_token_ids);
  return result;
}

}  // namespace augur::server
