// Text to token ids and back, as a Hugging Face tokenizer.json describes it.
//
// Encoding: added tokens are cut out of the text, the rest is normalized, cut into words by the
// pre-tokenizers, and each word encoded by byte-pair encoding; the post-processor puts special
// tokens around. Decoding: the decoders turn tokens into text. Which components are known is in
// tokenizer_components.h; files with others are refused. The fields truncation and padding are
// not read: both belong to the caller.
//
// Text that is not UTF-8 is repaired first, one U+FFFD per maximal subpart (utf8.h).
// Threading: immutable; any number of threads may use one tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace augur {

class Tokenizer {
 public:
  /// Files larger than this are refused.
  static constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

  /// Throws ConfigError when the file cannot be read or is not a tokenizer we can run.
  static Tokenizer from_file(const std::filesystem::path& tokenizer_json);
  /// The same for the text of such a file; `where` names it in errors.
  static Tokenizer from_json(std::string_view json, const std::string& where);

  /// `add_special_tokens`: with what the post-processor puts around. Added tokens that appear in
  /// the text become tokens either way. Time grows with n log n for every split pattern that runs
  /// as an automaton, which those of published models do (text_pattern.h); another may backtrack,
  /// and throws std::runtime_error when that gets out of hand.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;

  /// Ids that are no tokens are passed over. Well-formed UTF-8 whatever the ids.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;

  /// The highest id + 1; not every id below it need be a token.
  int32_t vocab_size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// The token as the file writes it, or empty text when there is none. Valid as long as this.
  std::string_view id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

 private:
  friend class Detokenizer;
  struct Impl;
  struct Reader;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur
