// Requests of /v1/completions.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/server/completion_answer.h"
#include "engine/server/json_fields.h"
#include "engine/server/openai_fields.h"
#include "engine/server/prompt_fields.h"
#include "engine/server/sampling_fields.h"
#include "engine/text/tokenizer.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr int64_t kDefaultMaxTokens = 16;

struct CompletionFields {
  std::optional<int64_t> max_tokens;
  bool has_echo = false;
  int64_t logprobs = -1;  // alternatives; -1: none wanted
  bool add_special_tokens = true;

  bool generates() const { return max_tokens.value_or(kDefaultMaxTokens) > 0; }
};

// It says how many texts are drawn to choose n from; drawing more than are shown is not done.
void check_best_of(const JsonFields& fields, int n) {
  const auto best_of = fields.integer("best_of", {.min = 1});
  if (best_of && *best_of != n) {
    fail_unsupported("best_of", json::value(*best_of), fmt::format("n, which is {}", n));
  }
}

CompletionFields read_fields(const JsonFields& fields,
                             const ApiContext& context,
                             const OpenAiFields& shared) {
  CompletionFields result;
  result.max_tokens = fields.integer("max_tokens", {.min = 0});
  result.has_echo = fields.boolean_or("echo", false);
  result.logprobs = fields.integer("logprobs", {0, max_alternatives(context)}).value_or(-1);
  result.add_special_tokens = fields.boolean_or("add_special_tokens", true);
  check_best_of(fields, shared.settings.n);
  constexpr std::string_view kUnsupported[] = {"suffix"};
  fields.refuse(kUnsupported);
  if (!result.generates() && !result.has_echo) {
    throw bad_request("max_tokens", "max_tokens is 0; accepted: 1 or more, or 0 with echo");
  }
  if (result.has_echo && result.logprobs >= 0 && shared.settings.is_streamed) {
    throw bad_request("logprobs",
                      "log-probabilities of an echoed prompt are not given in a stream; accepted: "
                      "stream false, or echo or logprobs left out",
                      "unsupported_value");
  }
  return result;
}

std::string echo_of(const Prompt& prompt, const ApiContext& context) {
  if (!prompt.text.empty()) return prompt.text;
  if (context.tokenizer == nullptr) {
    throw bad_request("echo", "echo needs a tokenizer, and this model has none; accepted: false");
  }
  return context.tokenizer->decode(prompt.ids, /*skip_special_tokens=*/false);
}

}  // namespace

ApiCall parse_completion_call(std::string_view body,
                              const ApiContext& context,
                              const CallIdentity& identity) {
  const json::value parsed = parse_json_object(body, context.bounds.max_json_values);
  const JsonFields fields(parsed.get_object());
  OpenAiFields shared = read_openai_fields(fields, context, identity);
  const CompletionFields asked = read_fields(fields, context, shared);
  const json::value* prompt_value = fields.find("prompt");
  if (context.is_strict) fields.refuse_unknown();
  if (prompt_value == nullptr) {
    throw bad_request("prompt",
                      "prompt is missing; accepted: a string, a list of strings, a list "
                      "of token ids, or a list of such lists");
  }
  PromptList prompts = read_prompts(*prompt_value, "prompt",
                                    {.add_special_tokens = asked.add_special_tokens,
                                     .min_output = asked.generates() ? 1 : 0,
                                     .num_each = shared.settings.n},
                                    context);

  ApiCall call;
  AnswerSettings& settings = shared.settings;
  call.is_streamed = settings.is_streamed;
  settings.has_logprobs = asked.logprobs >= 0;
  const bool scores_prompt = asked.has_echo && settings.has_logprobs;
  int64_t num_scored = 0;
  std::vector<std::string> echoes;
  for (Prompt& prompt : prompts.prompts) {
    Request request = shared.request;
    request.id = fmt::format("{}-{}", identity.id, call.requests.size());
    request.sampling.logprobs = static_cast<int>(asked.logprobs);
    request.score_prompt = scores_prompt;
    request.prompt_top_logprobs = static_cast<int>(std::max<int64_t>(asked.logprobs, 0));
    echoes.push_back(asked.has_echo ? echo_of(prompt, context) : std::string());
    const bool shows_ids = scores_prompt || settings.returns_token_ids;
    settings.prompts.push_back(shows_ids ? prompt.ids : std::vector<int32_t>());
    settings.num_prompt_tokens.push_back(static_cast<int64_t>(prompt.ids.size()));
    num_scored += scores_prompt ? static_cast<int64_t>(prompt.ids.size()) : 0;
    request.prompt_ids = std::move(prompt.ids);
    set_max_tokens(request, {.asked = asked.max_tokens, .otherwise = kDefaultMaxTokens}, context);
    check_request(request, context);
    call.client_ids.push_back(request.id);
    call.requests.push_back(std::move(request));
  }
  if (scores_prompt) check_prompt_logprobs(num_scored, asked.logprobs, context);
  call.answer =
      std::make_unique<CompletionAnswer>(std::move(settings), std::move(echoes), scores_prompt);
  return call;
}

}  // namespace augur::server
