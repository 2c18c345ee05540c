// Parses the part of the Oniguruma regular-expression dialect that tokenizer files are written in
// and that a finite automaton can run: literals, classes (nested, intersected, \p{..}, \s \d \w
// \h), groups (also (?i:..)), alternation, greedy and lazy repetition, and lookahead at one
// character, as in \s+(?!\S).
//
// Anything else (lookbehind, anchors, possessive repetition, back references) makes the parser
// give up without a verdict; such patterns run on PCRE2, which also finds the errors.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/text/code_point_set.h"

namespace augur {

struct RegexNode {
  enum class Kind : uint8_t {
    kEmpty,
    kSet,        // one code point of `set`
    kConcat,     // `children` one after the other
    kAlternate,  // the first of `children` that leads to a match
    kRepeat,     // children[0], min..max times (max < 0: no limit)
    kLookahead,  // the next code point is in `set`; with `negated`, it is not, or the text ends
  };
  Kind kind = Kind::kEmpty;
  CodePointSet set;
  std::vector<RegexNode> children;
  int min = 0;
  int max = 0;
  bool is_greedy = true;
  bool negated = false;
};

/// The parsed pattern (well-formed UTF-8), or nothing when it needs more than described above.
std::optional<RegexNode> parse_regex(std::string_view pattern);

}  // namespace augur
