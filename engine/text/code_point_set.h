// Sets of Unicode code points, as regular-expression classes need them.
//
// Categories are those of the utf8proc library (Unicode 15.0). White space and word characters
// follow the Oniguruma library, whose dialect tokenizer files are written in.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace augur {

/// A set of code points: sorted, disjoint, non-adjacent ranges. A value type.
class CodePointSet {
 public:
  struct Range {
    char32_t first;
    char32_t last;  // inclusive
    bool operator==(const Range&) const = default;
  };

  CodePointSet() = default;
  explicit CodePointSet(std::vector<Range> ranges);  // any order, may overlap

  static CodePointSet all() { return CodePointSet({{0, 0x10FFFF}}); }
  static CodePointSet of(char32_t code_point) { return CodePointSet({{code_point, code_point}}); }
  /// \p{NAME} for a general category (L, Lu, ...) or "Any"; nothing for other names.
  static std::optional<CodePointSet> of_property(std::string_view name);
  static const CodePointSet& white_space();  // \s
  static const CodePointSet& digits();       // \d
  static const CodePointSet& word();         // \w inside a class
  /// \w by itself, where Oniguruma also counts in the superscripts and fractions of Latin-1.
  static const CodePointSet& lone_word();

  CodePointSet united(const CodePointSet& other) const;
  CodePointSet intersected(const CodePointSet& other) const;
  CodePointSet complement() const;
  /// With every ASCII letter also in its other case, and the two further letters that fold to an
  /// ASCII one: U+017F (s) and U+212A (k). Nothing when the set goes past ASCII in part, where
  /// folding would need more than that.
  std::optional<CodePointSet> case_folded() const;

  bool contains(char32_t code_point) const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<Range>& ranges() const { return ranges_; }
  bool operator==(const CodePointSet&) const = default;

 private:
  std::vector<Range> ranges_;
};

}  // namespace augur
