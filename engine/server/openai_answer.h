// What the answers of OpenAI's two forms share: choices, their streams, usage, failures.
//
// A choice is a completion of a prompt; choices are counted prompt by prompt. Each choice of a
// stream is begun, continued and finished, in chunks; a call is complete when all requests are.
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/server/api_call.h"
#include "engine/server/token_text.h"

namespace augur::server {

/// How a call wants to be answered. Constant for its life.
struct AnswerSettings {
  CallIdentity identity;
  std::string model;
  std::string fingerprint;  // ApiContext::fingerprint
  const Tokenizer* tokenizer = nullptr;
  bool is_streamed = false;
  bool has_usage_chunk = false;   // stream_options.include_usage
  bool has_usage_always = false;  // stream_options.continuous_usage_stats
  bool returns_token_ids = false;
  bool skips_special_tokens = true;
  bool has_logprobs = false;
  int n = 1;
  std::vector<int32_t> named_stop_ids;  // stop_token_ids of the request that are not end-of-text
  std::vector<std::vector<int32_t>> prompts;  // ids; where the answer shows them, else empty lists
  std::vector<int64_t> num_prompt_tokens;
};

/// What a choice gained.
struct ChoicePiece {
  std::string_view text;
  std::span<const int32_t> token_ids;
  std::span<const ScoredToken> logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  std::string_view matched_stop;
  bool is_last = false;
};

class OpenAiAnswer : public Answer {
 public:
  /// What the whole answer is called, and a chunk of a stream: "chat.completion.chunk".
  OpenAiAnswer(AnswerSettings settings, std::string_view name, std::string_view chunk_name);
  void on_update(int request_idx, const RequestUpdate& update, std::string& out) final;
  void on_finished(int request_idx, RequestResult&& result, std::string& out) final;
  void on_complete(std::string& out) final;

 protected:
  struct Choice {
    int idx = 0;
    int request_idx = 0;
    bool is_begun = false;
    bool is_done = false;
    size_t num_text_bytes = 0;  // streamed
    size_t num_tokens = 0;      // streamed
    int64_t text_offset = 0;    // characters the tokens streamed so far come to
  };

  /// Appends what comes before the first piece of a choice: chunks of its own, or none.
  virtual void append_beginning(Choice& choice, std::string& out) = 0;
  /// Appends from ',' on what a chunk says of a choice: its text, logprobs and token ids.
  virtual void append_piece(Choice& choice, const ChoicePiece& piece, std::string& out) = 0;
  /// The same of a choice of a whole answer; `completion` is empty when nothing was to be
  /// generated.
  virtual void append_whole(Choice& choice,
                            const RequestResult& result,
                            const Completion& completion,
                            std::string& out) = 0;
  /// Appends members of the whole answer besides the usual, each with ',' before it.
  virtual void append_extra(std::string& out) const {}

  // A chunk of one choice: what stands between the two is its members, from ',' on. `extra`:
  // members of the chunk itself, likewise.
  void begin_chunk(const Choice& choice, std::string& out) const;
  void end_chunk(const Choice& choice, std::string_view extra, std::string& out) const;
  void append_finish(FinishReason reason,
                     std::string_view matched_stop,
                     std::optional<int32_t> last_token,
                     std::string& out) const;
  /// Whether a token adds nothing to the text of an answer.
  bool is_left_out(int32_t token_id);

  const AnswerSettings settings_;
  TokenTexts texts_;

 private:
  void send_piece(Choice& choice, const ChoicePiece& piece, std::string& out);
  void send_rest(int request_idx, const RequestResult& result, std::string& out);
  void append_head(std::string_view name, std::string& out) const;
  void append_whole_answer(std::string& out);
  void append_usage(std::string& out) const;

  const std::string name_;
  std::string chunk_prefix_;            // "data: {" up to the choice
  std::vector<Choice> choices_;         // of all requests
  std::vector<RequestResult> results_;  // by request, unless streamed
  std::string error_;                   // of the first request that failed
  int64_t num_prompt_tokens_ = 0;       // of finished requests, as the next two
  int64_t num_output_tokens_ = 0;
  int64_t num_cached_tokens_ = 0;
};

/// "stop", "length", "abort"; a request that was to generate nothing ends by length.
std::string_view finish_name(FinishReason reason);

}  // namespace augur::server
