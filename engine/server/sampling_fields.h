// The settings of sampling, as the three forms of requests name them.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/schedule/request.h"
#include "engine/server/api_call.h"
#include "engine/server/json_fields.h"

namespace augur::server {

/// Whose names and defaults.
enum class ApiDialect : uint8_t {
  kOpenAi,  // what a request leaves out comes from the model's generation_config, then from OpenAI
  kNative,  // /generate: SGLang's names and its fixed defaults
};

/// Reads every setting of sampling but the number of tokens and of log-probabilities. A
/// temperature below 1e-5 is taken as 0, as other engines do. Throws ApiError.
SamplingParams read_sampling(const JsonFields& fields,
                             const ApiContext& context,
                             ApiDialect dialect);

/// How many tokens are asked for, and where.
struct MaxTokens {
  std::optional<int64_t> asked;
  int64_t otherwise = 0;  // unless the context or the memory has less room
  std::string path = "max_tokens";
  std::string min_path = "min_tokens";
};

/// Sets the max_tokens of a request that has its prompt. Throws ApiError (context_length_exceeded)
/// when what was asked for fits neither the context nor the memory, and when min_tokens is more.
void set_max_tokens(Request& request, const MaxTokens& max_tokens, const ApiContext& context);

/// Throws ApiError (context_length_exceeded) when a prompt of so many tokens leaves no room for
/// `min_output` more.
void check_prompt_length(int64_t num_prompt_tokens,
                         int64_t min_output,
                         const ApiContext& context,
                         const std::string& path);

/// How many alternatives may be asked for beside a token.
int64_t max_alternatives(const ApiContext& context);

/// A list of token ids, each in the vocabulary, at most `max_ids`. Counted before it is copied.
std::vector<int32_t> read_token_ids(const boost::json::value& value,
                                    const std::string& path,
                                    int64_t max_ids,
                                    int64_t vocab_size);

/// The last check before the engine sees a request: what it would refuse is refused here (400).
void check_request(const Request& request, const ApiContext& context);

}  // namespace augur::server
