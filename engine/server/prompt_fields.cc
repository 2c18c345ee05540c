#include "engine/server/prompt_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "engine/server/api_error.h"
#include "engine/server/sampling_fields.h"
#include "engine/text/tokenizer.h"

namespace augur::server {
namespace {

namespace json = boost::json;

constexpr size_t kMaxModelNameBytes = 1024;

std::string accepted_forms(const PromptRules& rules) {
  if (!rules.takes_ids) return "a string or a list of strings";
  if (!rules.takes_text) return "a list of token ids or a list of such lists";
  return "a string, a list of strings, a list of token ids, or a list of such lists";
}

class PromptReader {
 public:
  PromptReader(const PromptRules& rules, const ApiContext& context)
      : rules_(rules), context_(context) {}

  Prompt from_text(const json::value& value, std::string path) const {
    const std::string_view text = to_string(value, path, 0, std::string::npos);
    if (text.empty()) throw bad_request(path, path + " is empty; accepted: at least one token");
    Prompt prompt{std::move(path), std::string(text), {}};
    prompt.ids = encode_text(text, rules_.add_special_tokens, context_, prompt.path);
    check(prompt);
    return prompt;
  }

  Prompt from_ids(const json::value& value, std::string path) const {
    const json::array* list = value.if_array();
    if (list == nullptr) fail_field(path, value, "a list of token ids");
    // Its length is known before any of it is copied.
    const auto num_ids = static_cast<int64_t>(list->size());
    check_prompt_length(std::max<int64_t>(num_ids, 1), rules_.min_output, context_, path);
    Prompt prompt{path, {}, read_token_ids(value, path, num_ids, context_.limits.vocab_size)};
    check(prompt);
    return prompt;
  }

 private:
  void check(const Prompt& prompt) const {
    if (prompt.ids.empty()) {
      throw bad_request(prompt.path, prompt.path + " has no token; accepted: at least one");
    }
    check_prompt_length(static_cast<int64_t>(prompt.ids.size()), rules_.min_output, context_,
                        prompt.path);
  }

  const PromptRules& rules_;
  const ApiContext& context_;
};

void check_num_prompts(int64_t num_prompts,
                       const std::string& path,
                       const PromptRules& rules,
                       const ApiContext& context) {
  const ApiLimits& bounds = context.bounds;
  if (num_prompts > bounds.max_prompts) {
    throw bad_request(path, fmt::format("{} has {} prompts; accepted: at most {}", path,
                                        num_prompts, bounds.max_prompts));
  }
  if (num_prompts * rules.num_each > bounds.max_sequences) {
    throw bad_request(path, fmt::format("{} prompts with n {} ask for {} completions; accepted: at "
                                        "most {}",
                                        num_prompts, rules.num_each, num_prompts * rules.num_each,
                                        bounds.max_sequences));
  }
}

}  // namespace

PromptList read_prompts(const json::value& value,
                        const std::string& path,
                        const PromptRules& rules,
                        const ApiContext& context) {
  const PromptReader reader(rules, context);
  PromptList result;
  if (value.is_string() && rules.takes_text) {
    check_num_prompts(1, path, rules, context);
    result.prompts.push_back(reader.from_text(value, path));
    return result;
  }
  const json::array* list = value.if_array();
  if (list == nullptr) fail_field(path, value, accepted_forms(rules));
  if (list->empty()) throw bad_request(path, path + " is empty; accepted: at least one token");

  const json::value& first = list->front();
  if (first.is_number() && rules.takes_ids) {
    check_num_prompts(1, path, rules, context);
    result.prompts.push_back(reader.from_ids(value, path));
    return result;
  }
  const bool is_text = first.is_string() && rules.takes_text;
  const bool is_ids = first.is_array() && rules.takes_ids;
  if (!is_text && !is_ids) fail_field(item_path(path, 0), first, accepted_forms(rules));
  check_num_prompts(static_cast<int64_t>(list->size()), path, rules, context);
  result.is_list = true;
  result.prompts.reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string where = item_path(path, i);
    result.prompts.push_back(is_text ? reader.from_text((*list)[i], where)
                                     : reader.from_ids((*list)[i], where));
  }
  return result;
}

std::vector<int32_t> encode_text(std::string_view text,
                                 bool add_special_tokens,
                                 const ApiContext& context,
                                 const std::string& path) {
  if (context.tokenizer == nullptr) {
    throw bad_request(path,
                      path + " is text, and this model has no tokenizer; accepted: token ids");
  }
  std::vector<int32_t> ids;
  try {
    ids = context.tokenizer->encode(text, add_special_tokens);
  } catch (const std::runtime_error& error) {
    throw bad_request(path, path + " cannot be encoded: " + error.what());
  }
  const auto is_unknown = [&](int32_t id) { return id >= context.limits.vocab_size; };
  const auto unknown = std::find_if(ids.begin(), ids.end(), is_unknown);
  if (unknown != ids.end()) {
    throw bad_request(path, fmt::format("{} has the token {}, which the model does not know; it "
                                        "knows {} tokens",
                                        path, *unknown, context.limits.vocab_size));
  }
  return ids;
}

void check_model(const JsonFields& fields, const ApiContext& context) {
  const auto name = fields.string("model", kMaxModelNameBytes);
  if (!name || context.accepts_any_model) return;
  const auto& names = context.model_names;
  if (std::find(names.begin(), names.end(), *name) != names.end()) return;
  throw ApiError(
      404, "invalid_request_error", "model_not_found", "model",
      fmt::format("The model `{}` does not exist. Served: {}", *name, fmt::join(names, ", ")));
}

void check_prompt_logprobs(int64_t num_tokens, int64_t top_n, const ApiContext& context) {
  const int64_t num_logprobs = num_tokens * (top_n + 1);
  if (num_logprobs > context.bounds.max_prompt_logprobs) {
    throw bad_request(
        "", fmt::format("log-probabilities of {} prompt tokens with {} alternatives "
                        "each are {}; accepted: at most {}",
                        num_tokens, top_n, num_logprobs, context.bounds.max_prompt_logprobs));
  }
}

}  // namespace augur::server
