// Log-probabilities as the three forms of answers write them.
//
// Threading: one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/schedule/request.h"
#include "engine/server/token_text.h"

namespace augur::server {

/// OpenAI's lists beside the text of a completion: {"text_offset", "token_logprobs", "tokens",
/// "top_logprobs"}. A token that is no text is written as "bytes:\xe2\x80". Alternatives are keyed
/// by text; of two with the same text the likelier stays. The token itself is always among them,
/// so that it was the likeliest exactly when no alternative is above it.
class CompletionLogprobs {
 public:
  explicit CompletionLogprobs(TokenTexts& texts) : texts_(texts) {}

  /// Empties the lists; they keep their memory.
  void clear();
  /// A token at character `text_offset` of the choice's text; `scored` absent: with null.
  void add(int32_t token_id, const std::optional<ScoredToken>& scored, int64_t text_offset);
  void add(const ScoredToken& scored, int64_t text_offset);
  /// Appends the object.
  void append_to(std::string& out) const;

 private:
  void add_token(int32_t token_id, int64_t text_offset);
  void add_alternatives(const ScoredToken& scored);

  TokenTexts& texts_;
  // The insides of the four lists.
  std::string offsets_;
  std::string logprobs_;
  std::string tokens_;
  std::string alternatives_;
};

/// Appends an entry of a chat answer's logprobs.content: {"token", "logprob", "bytes",
/// "top_logprobs"}. "token" is the repaired text of a token that is no text by itself.
void append_chat_logprob(const ScoredToken& scored, TokenTexts& texts, std::string& out);

/// Appends an entry of /generate: [logprob, id, text]. `logprob` absent: null; the text is null
/// unless `with_text`.
void append_native_logprob(std::optional<float> logprob,
                           int32_t token_id,
                           bool with_text,
                           TokenTexts& texts,
                           std::string& out);
/// The same of the alternatives to a token, as a list.
void append_native_alternatives(const std::vector<TokenLogprob>& top,
                                bool with_text,
                                TokenTexts& texts,
                                std::string& out);

}  // namespace augur::server
