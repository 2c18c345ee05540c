// A regular expression compiled to a deterministic automaton over code points.
//
// The match found is the one a backtracking matcher would find: leftmost, and there the first in
// the order of alternatives and greediness. A state is the ordered list of threads such a matcher
// could be in (as in Cox, "Regular Expression Matching: the Virtual Machine Approach"); a thread
// of lower priority dies once a better one has matched. Matches are decided one code point late,
// with that code point known, which is what lookahead at one character needs.
// Nothing backtracks or recurses. A match reads its own code points once, and further ones only as
// far as a better alternative may still hold; the split patterns of published models cover every
// text with matches, and take time in proportion to it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/text/regex_parser.h"

namespace augur {

/// Immutable after compile; any number of threads may search with it.
class RegexAutomaton {
 public:
  struct Match {
    size_t begin;
    size_t end;
  };

  /// Nothing when the automaton would be too large.
  static std::optional<RegexAutomaton> compile(const RegexNode& pattern);

  /// The first match at or after `start`, a character boundary of `text`, well-formed UTF-8.
  std::optional<Match> find(std::string_view text, size_t start) const;

  int num_states() const { return static_cast<int>(transitions_.size()) / num_classes_; }
  int num_classes() const { return num_classes_; }

 private:
  friend class AutomatonBuilder;
  static constexpr uint16_t kMatchedBefore = 0x8000;  // the pattern matched before this code point
  static constexpr uint16_t kStateMask = 0x7FFF;
  static constexpr uint16_t kDead = 0;  // no thread is left
  static constexpr uint16_t kStart = 1;

  RegexAutomaton() = default;
  uint8_t class_of(char32_t code_point) const {
    return page_classes_[size_t{pages_[code_point >> 8]} * 256 + (code_point & 0xFF)];
  }

  // Code points that no set of the pattern tells apart share a class. The last class is the end
  // of the text.
  int num_classes_ = 0;
  std::array<uint8_t, 128> ascii_classes_{};
  std::vector<uint16_t> pages_;        // code point / 256 -> index of a page
  std::vector<uint8_t> page_classes_;  // distinct pages of 256 classes
  std::vector<uint16_t> transitions_;  // [num_states, num_classes]
};

}  // namespace augur
