// The normalizers of tokenizer.json: NFC, NFD, NFKC, NFKD, Prepend, Replace, Lowercase, Strip and
// sequences of them. Unicode data is that of utf8proc (Unicode 15.0).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/text_pattern.h"

namespace augur {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

/// Appends `text` (well-formed UTF-8) in the given normal form to `out`. Time is linear but for
/// the sorting of combining marks; stretches that are in the form already are copied.
void append_normal_form(std::string_view text, UnicodeForm form, std::string& out);

/// Appends `text` with every code point in lower case, by itself (final sigma is no exception).
void append_lowercase(std::string_view text, std::string& out);

/// One step. Which fields it uses depends on `kind`.
struct NormalizerStep {
  enum class Kind { kUnicodeForm, kPrepend, kReplace, kLowercase, kStrip };
  Kind kind;
  UnicodeForm form = UnicodeForm::kNfc;
  std::string content;                 // of Prepend and Replace
  std::optional<TextPattern> pattern;  // of Replace
  bool strips_left = false;
  bool strips_right = false;
};

/// Immutable; any number of threads may use it.
class Normalizer {
 public:
  Normalizer() = default;
  explicit Normalizer(std::vector<NormalizerStep> steps) : steps_(std::move(steps)) {}

  /// The normalized `text`: `text` itself when there are no steps, else a view of `storage`.
  /// `keeps_start` is set to false when the first character was cut off.
  std::string_view apply(std::string_view text, std::string& storage, bool& keeps_start) const;

  bool is_identity() const { return steps_.empty(); }

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace augur
