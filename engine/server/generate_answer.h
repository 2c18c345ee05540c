// Answers of /generate.
//
// A result is {"text", "output_ids", "meta_info"}. Each event of a stream is a whole result of what
// there is so far, so it grows with the text, as SGLang's do; the last of a completion has its
// finish_reason and what is known only at the end: cached tokens, latency, log-probabilities of
// the prompt. Calls with several prompts or completions are answered with a list; the events of
// their streams say "index".
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/server/api_call.h"
#include "engine/server/generate_fields.h"
#include "engine/server/token_text.h"

namespace augur::server {

/// What the answer must know of one request. Constant for its life.
struct GenerateRequest {
  std::string id;
  int64_t num_prompt_tokens = 0;
  bool has_logprobs = false;
  int64_t first_logprob = -1;  // as in GenerateItem
  int top_n = 0;
  std::vector<int32_t> scored_ids;  // prompt tokens from first_logprob on
};

struct GenerateSettings {
  const Tokenizer* tokenizer = nullptr;
  std::string fingerprint;  // ApiContext::fingerprint
  bool is_streamed = false;
  bool is_list = false;
  bool has_text_in_logprobs = false;
  int n = 1;
  std::vector<GenerateRequest> requests;
};

class GenerateAnswer final : public Answer {
 public:
  explicit GenerateAnswer(GenerateSettings settings);
  void on_update(int request_idx, const RequestUpdate& update, std::string& out) override;
  void on_finished(int request_idx, RequestResult&& result, std::string& out) override;
  void on_complete(std::string& out) override;

 private:
  /// A completion so far, as the insides of the JSON strings and lists of its result.
  struct Choice {
    std::string text;
    std::string output_ids;
    std::string logprobs;
    std::string alternatives;
    size_t num_text_bytes = 0;  // before they were escaped
    size_t num_tokens = 0;
  };

  void take(const GenerateRequest& request,
            std::string_view text,
            std::span<const int32_t> token_ids,
            std::span<const ScoredToken> logprobs,
            Choice& choice);
  /// Appends a result; `result` is null while the request runs.
  void append_result(int choice_idx, const RequestResult* result, std::string& out);
  void append_input_logprobs(const GenerateRequest& request,
                             const RequestResult& result,
                             std::string& out);
  std::string id_of(int choice_idx) const;

  const GenerateSettings settings_;
  TokenTexts texts_;
  std::vector<Choice> choices_;
  std::vector<std::string> results_;  // of choices whose request has finished, unless streamed
  std::string error_;                 // of the first request that failed
};

}  // namespace augur::server
