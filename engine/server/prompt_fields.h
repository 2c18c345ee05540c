// Prompts as requests give them: text or token ids, one or several.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/server/api_call.h"
#include "engine/server/json_fields.h"

namespace augur::server {

struct Prompt {
  std::string path;  // where it stands: "prompt", "prompt[3]"
  std::string text;  // as it was given; empty where ids were
  std::vector<int32_t> ids;
};

struct PromptList {
  std::vector<Prompt> prompts;  // at least one
  bool is_list = false;         // was given as a list of prompts, if only of one
};

struct PromptRules {
  bool takes_text = true;  // strings
  bool takes_ids = true;   // lists of ids
  bool add_special_tokens = true;
  int64_t min_output = 0;  // tokens there must be room for behind each prompt
  int64_t num_each = 1;    // completions of each: what max_sequences counts
};

/// Reads what stands at `path`: a string, a list of strings, a list of ids, or a list of lists of
/// ids. Each prompt has a token at least and leaves room in the context. Throws ApiError.
PromptList read_prompts(const boost::json::value& value,
                        const std::string& path,
                        const PromptRules& rules,
                        const ApiContext& context);

/// The tokens of `text`. Throws ApiError where there is no tokenizer or it gives up.
std::vector<int32_t> encode_text(std::string_view text,
                                 bool add_special_tokens,
                                 const ApiContext& context,
                                 const std::string& path);

/// Checks "model": throws ApiError (404 model_not_found) for a name that is not served. A request
/// without one gets the model there is.
void check_model(const JsonFields& fields, const ApiContext& context);

/// Counts the log-probabilities that prompts ask for against ApiLimits::max_prompt_logprobs.
void check_prompt_logprobs(int64_t num_tokens, int64_t top_n, const ApiContext& context);

}  // namespace augur::server
