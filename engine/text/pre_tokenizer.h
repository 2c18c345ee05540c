// The pre-tokenizers of tokenizer.json: they cut a text into the words that the model encodes.
//
// Split, Digits, Punctuation, Whitespace and WhitespaceSplit are all one thing here, a pattern and
// what becomes of its matches. ByteLevel and Metaspace also edit the text.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/text_pattern.h"

namespace augur {

/// What becomes of the delimiters that a split pattern matches. On "the-final--countdown" at "-":
enum class SplitBehavior {
  kRemoved,             // the|final|countdown
  kIsolated,            // the|-|final|-|-|countdown
  kMergedWithPrevious,  // the-|final-|-|countdown
  kMergedWithNext,      // the|-final|-|-countdown
  kContiguous,          // the|-|final|--|countdown
};

/// One step. Which fields it uses depends on `kind`.
struct PreTokenizerStep {
  enum class Kind {
    kSplit,             // by `pattern` and `behavior`
    kEnsureStartsWith,  // `text` goes before a piece that does not start with it
    kReplaceSpaces,     // every U+0020 becomes `text`
    kByteLevel,         // every byte becomes its printable stand-in
  };
  Kind kind;
  std::optional<TextPattern> pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what lies between the matches is the delimiter
  std::string text;
  bool only_at_start = false;  // of kEnsureStartsWith: only for the piece that begins the input
};

/// Takes the words, in order. `word` is not empty and only valid during the call.
class WordSink {
 public:
  virtual ~WordSink() = default;
  virtual void take(std::string_view word) = 0;
};

/// Immutable; any number of threads may use it.
class PreTokenizer {
 public:
  PreTokenizer() = default;
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps) : steps_(std::move(steps)) {}

  /// Cuts `text` (well-formed UTF-8, not empty). `is_input_start`: it begins the encoder's input.
  void run(std::string_view text, bool is_input_start, WordSink& sink) const {
    run_step(0, text, is_input_start, sink);
  }

 private:
  void run_step(size_t step_idx, std::string_view piece, bool is_input_start, WordSink& sink) const;
  void split(size_t step_idx, std::string_view piece, bool is_input_start, WordSink& sink) const;

  std::vector<PreTokenizerStep> steps_;
};

}  // namespace augur
