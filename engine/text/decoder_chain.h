// The decoders of tokenizer.json, as stages that a stream of tokens flows through. What a stage
// passes on is final, so the text of a stream is the text of the whole, in parts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/text_pattern.h"

namespace augur {

/// One decoder. Which fields it uses depends on `kind`.
struct DecoderStep {
  enum class Kind {
    kByteLevel,     // stand-ins to bytes; all tokens become one text, invalid UTF-8 is repaired
    kReplace,       // in each token, matches of `pattern` become `content`
    kByteFallback,  // runs of "<0xXX>" become the text those bytes are, or one U+FFFD each
    kFuse,          // all tokens become one
    kStrip,         // from each token, up to `start` and `stop` times `content` at the ends
    kMetaspace,     // `content` becomes a space; in the first token, nothing if drops_first
    kJoin,          // a space between tokens: what a tokenizer without a decoder does
  };
  Kind kind;
  std::optional<TextPattern> pattern;
  std::string content;
  size_t start = 0;
  size_t stop = 0;
  bool drops_first = false;
};

/// Takes parts of tokens, in order.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  /// `part` is well-formed UTF-8; `ends_token`: the next part begins another token.
  virtual void push(std::string_view part, bool ends_token) = 0;
  /// The stream ends. Called once, with the last token ended or, after a stage that joins
  /// tokens, open.
  virtual void finish() = 0;
};

/// One stream through `steps`, which outlive it. Used by one thread at a time.
class DecoderChain {
 public:
  explicit DecoderChain(const std::vector<DecoderStep>& steps);
  DecoderChain(DecoderChain&&) noexcept;
  DecoderChain& operator=(DecoderChain&&) noexcept;
  ~DecoderChain();

  void push(std::string_view token);
  void finish();
  /// What became final since the last call.
  std::string take_text();

 private:
  std::unique_ptr<std::string> text_;                 // where the last stage writes
  std::vector<std::unique_ptr<DecodeStage>> stages_;  // the last first
};

}  // namespace augur
