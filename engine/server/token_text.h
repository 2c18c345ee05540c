// What single tokens look like in the log-probabilities of an answer.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

namespace augur {
class Tokenizer;
}  // namespace augur

namespace augur::server {

/// The bytes that tokens add in the middle of a text, looked up once each. A token may be part of
/// a character: then its bytes are no text by themselves.
/// Threading: one thread.
class TokenTexts {
 public:
  /// `tokenizer` outlives this; null: tokens are called "token_id:17".
  explicit TokenTexts(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  struct Entry {
    std::string bytes;
    bool is_text = true;      // `bytes` are whole characters
    bool is_special = false;  // left out of answers that skip special tokens
    int num_characters = 0;   // characters that begin in it
  };
  /// Valid until the next call.
  const Entry& of(int32_t token_id);

 private:
  const Tokenizer* tokenizer_;
  std::unordered_map<int32_t, Entry> entries_;
};

/// Code points that begin in `bytes`.
int count_characters(std::string_view bytes);

}  // namespace augur::server
