// Requests of /v1/chat/completions.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/server/chat_answer.h"
#include "engine/server/chat_messages.h"
#include "engine/server/json_fields.h"
#include "engine/server/openai_fields.h"
#include "engine/server/sampling_fields.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr std::string_view kUnsupported[] = {
    "echo",  "functions",          "function_call", "audio",      "prediction",
    "store", "web_search_options", "verbosity",     "moderation",
};

/// Alternatives beside each token, -1: no log-probabilities at all.
int read_logprobs(const JsonFields& fields, const ApiContext& context) {
  const bool wanted = fields.boolean_or("logprobs", false);
  const auto top = fields.integer("top_logprobs", {0, max_alternatives(context)});
  if (!wanted && top.value_or(0) > 0) {
    throw bad_request("top_logprobs",
                      fmt::format("top_logprobs is {}, and logprobs is not true; accepted: "
                                  "top_logprobs with logprobs true",
                                  *top));
  }
  return wanted ? static_cast<int>(top.value_or(0)) : -1;
}

void check_modalities(const JsonFields& fields) {
  const json::value* value = fields.find("modalities");
  if (value == nullptr) return;
  const json::array* list = value->if_array();
  if (list == nullptr) fail_field("modalities", *value, "[\"text\"]");
  for (size_t i = 0; i < list->size(); ++i) {
    if ((*list)[i] != json::value("text")) {
      fail_unsupported(item_path("modalities", i), (*list)[i], "\"text\"");
    }
  }
}

}  // namespace

ApiCall parse_chat_call(std::string_view body,
                        const ApiContext& context,
                        const CallIdentity& identity) {
  const json::value parsed = parse_json_object(body, context.bounds.max_json_values);
  const JsonFields fields(parsed.get_object());
  OpenAiFields shared = read_openai_fields(fields, context, identity);
  AnswerSettings& settings = shared.settings;
  Request& request = shared.request;
  check_modalities(fields);
  fields.refuse(kUnsupported);
  fields.boolean("parallel_tool_calls");  // calls are not parsed, however many
  request.sampling.logprobs = read_logprobs(fields, context);
  const auto max_tokens = fields.integer("max_tokens", {.min = 1});
  const auto max_completion_tokens = fields.integer("max_completion_tokens", {.min = 1});
  request.prompt_ids = read_chat_prompt(fields, context);
  if (context.is_strict) fields.refuse_unknown();

  if (settings.n > context.bounds.max_sequences) {
    throw bad_request("n", fmt::format("n is {}; accepted: at most {}", settings.n,
                                       context.bounds.max_sequences));
  }
  const auto num_prompt = static_cast<int64_t>(request.prompt_ids.size());
  check_prompt_length(num_prompt, /*min_output=*/1, context, "messages");
  const bool is_newer = max_completion_tokens.has_value();
  set_max_tokens(request,
                 {.asked = is_newer ? max_completion_tokens : max_tokens,
                  .otherwise = std::numeric_limits<int64_t>::max(),
                  .path = is_newer ? "max_completion_tokens" : "max_tokens"},
                 context);
  request.id = identity.id + "-0";
  check_request(request, context);

  settings.has_logprobs = request.sampling.logprobs >= 0;
  settings.prompts.push_back(settings.returns_token_ids ? request.prompt_ids
                                                        : std::vector<int32_t>());
  settings.num_prompt_tokens.push_back(num_prompt);
  ApiCall call;
  call.is_streamed = settings.is_streamed;
  call.client_ids.push_back(request.id);
  call.requests.push_back(std::move(request));
  call.answer = std::make_unique<ChatAnswer>(std::move(settings));
  return call;
}

}  // namespace augur::server
