#include "engine/text/regex_parser.h"

#include <string>
#include <utility>

#include "engine/text/utf8.h"

namespace augur {
namespace {

using Kind = RegexNode::Kind;

constexpr int kMaxDepth = 64;     // of groups and nested classes
constexpr int kMaxRepeat = 1000;  // {n,m} is unrolled

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {}

  std::optional<RegexNode> parse() {
    std::optional<RegexNode> node = parse_alternatives(/*ignore_case=*/false, /*depth=*/0);
    if (!node || position_ != pattern_.size()) return std::nullopt;
    return node;
  }

 private:
  bool at_end() const { return position_ == pattern_.size(); }
  bool looking_at(std::string_view text) const {
    return pattern_.substr(position_).starts_with(text);
  }
  bool accept(std::string_view text) {
    if (!looking_at(text)) return false;
    position_ += text.size();
    return true;
  }
  char32_t take() { return next_code_point(pattern_, position_); }

  static RegexNode set_node(CodePointSet set) {
    RegexNode node;
    node.kind = Kind::kSet;
    node.set = std::move(set);
    return node;
  }

  std::optional<RegexNode> parse_alternatives(bool ignore_case, int depth) {
    if (depth > kMaxDepth) return std::nullopt;
    RegexNode alternatives;
    alternatives.kind = Kind::kAlternate;
    do {
      std::optional<RegexNode> branch = parse_sequence(ignore_case, depth);
      if (!branch) return std::nullopt;
      alternatives.children.push_back(*std::move(branch));
    } while (accept("|"));
    if (alternatives.children.size() == 1) return std::move(alternatives.children[0]);
    return alternatives;
  }

  std::optional<RegexNode> parse_sequence(bool ignore_case, int depth) {
    RegexNode sequence;
    sequence.kind = Kind::kConcat;
    while (!at_end() && !looking_at("|") && !looking_at(")")) {
      std::optional<RegexNode> atom = parse_atom(ignore_case, depth);
      if (!atom) return std::nullopt;
      atom = parse_quantifier(*std::move(atom));
      if (!atom) return std::nullopt;
      sequence.children.push_back(*std::move(atom));
    }
    return sequence;
  }

  std::optional<RegexNode> parse_atom(bool ignore_case, int depth) {
    if (looking_at("(")) return parse_group(ignore_case, depth);
    CodePointSet set;
    if (accept("[")) {
      std::optional<CodePointSet> parsed = parse_class(depth);
      if (!parsed) return std::nullopt;
      set = *std::move(parsed);
    } else if (accept(".")) {
      set = CodePointSet::of('\n').complement();
    } else if (accept("\\")) {
      std::optional<Escape> escape = parse_escape(/*in_class=*/false);
      if (!escape) return std::nullopt;
      set = std::move(escape->set);
    } else {
      const char32_t c = take();
      // '{' may be a literal in this dialect, and "^$" are anchors: both are left to PCRE2.
      if (c == '*' || c == '+' || c == '?' || c == '{' || c == '^' || c == '$') return std::nullopt;
      set = CodePointSet::of(c);
    }
    if (ignore_case) {
      std::optional<CodePointSet> folded = set.case_folded();
      if (!folded) return std::nullopt;
      set = *std::move(folded);
    }
    return set_node(std::move(set));
  }

  std::optional<RegexNode> parse_group(bool ignore_case, int depth) {
    accept("(");
    bool is_lookahead = false;
    bool negated = false;
    if (accept("?")) {
      if (accept(":")) {
      } else if (accept("i:")) {
        ignore_case = true;
      } else if (accept("=")) {
        is_lookahead = true;
      } else if (accept("!")) {
        is_lookahead = negated = true;
      } else {
        return std::nullopt;
      }
    }
    std::optional<RegexNode> body = parse_alternatives(ignore_case, depth + 1);
    if (!body || !accept(")")) return std::nullopt;
    if (!is_lookahead) return body;
    if (body->kind != Kind::kConcat || body->children.size() != 1 ||
        body->children[0].kind != Kind::kSet) {
      return std::nullopt;
    }
    RegexNode node = std::move(body->children[0]);
    node.kind = Kind::kLookahead;
    node.negated = negated;
    return node;
  }

  std::optional<RegexNode> parse_quantifier(RegexNode atom) {
    int min = 0;
    int max = -1;
    const bool is_braced = looking_at("{");
    if (accept("?")) {
      max = 1;
    } else if (accept("*")) {
    } else if (accept("+")) {
      min = 1;
    } else if (is_braced) {
      if (!parse_bounds(min, max)) return std::nullopt;
    } else {
      return atom;
    }
    if (atom.kind == Kind::kLookahead) return std::nullopt;
    RegexNode repeat;
    repeat.kind = Kind::kRepeat;
    repeat.min = min;
    repeat.max = max;
    // After braces, '?' and '+' mean other things in this dialect.
    if (!is_braced && accept("?")) repeat.is_greedy = false;
    if (looking_at("?") || looking_at("*") || looking_at("+") || looking_at("{")) {
      return std::nullopt;
    }
    repeat.children.push_back(std::move(atom));
    return repeat;
  }

  // {n}, {n,} and {n,m}.
  bool parse_bounds(int& min, int& max) {
    accept("{");
    if (!parse_number(min)) return false;
    max = min;
    if (accept(",")) {
      max = -1;
      if (!looking_at("}") && !parse_number(max)) return false;
    }
    return accept("}") && (max < 0 || min <= max);
  }

  bool parse_number(int& number) {
    const size_t start = position_;
    number = 0;
    while (!at_end() && pattern_[position_] >= '0' && pattern_[position_] <= '9') {
      number = number * 10 + (pattern_[position_++] - '0');
      if (number > kMaxRepeat) return false;
    }
    return position_ > start;
  }

  struct Escape {
    CodePointSet set;
    std::optional<char32_t> code_point;  // when it names one: usable in a range
  };

  static Escape literal(char32_t c) { return {CodePointSet::of(c), c}; }

  std::optional<Escape> parse_escape(bool in_class) {
    if (at_end()) return std::nullopt;
    const char32_t c = take();
    const CodePointSet& word = in_class ? CodePointSet::word() : CodePointSet::lone_word();
    switch (c) {
      case 'n':
        return literal('\n');
      case 'r':
        return literal('\r');
      case 't':
        return literal('\t');
      case 'f':
        return literal('\f');
      case 'v':
        return literal('\v');
      case 's':
        return Escape{CodePointSet::white_space(), {}};
      case 'S':
        return Escape{CodePointSet::white_space().complement(), {}};
      case 'd':
        return Escape{CodePointSet::digits(), {}};
      case 'D':
        return Escape{CodePointSet::digits().complement(), {}};
      case 'w':
        return Escape{word, {}};
      case 'W':
        return Escape{word.complement(), {}};
      case 'p':
      case 'P':
        return parse_property(/*negated=*/c == 'P');
      case 'x':
        return accept("{") ? parse_hex(1, 6, "}") : parse_hex(2, 2, "");
      case 'u':
        return parse_hex(4, 4, "");
      default:
        break;
    }
    const bool is_alphanumeric =
        (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c >= 0x80;
    if (is_alphanumeric) return std::nullopt;
    return literal(c);
  }

  std::optional<Escape> parse_property(bool negated) {
    if (!accept("{")) return std::nullopt;
    if (accept("^")) negated = !negated;
    const size_t end = pattern_.find('}', position_);
    if (end == std::string_view::npos) return std::nullopt;
    std::optional<CodePointSet> set =
        CodePointSet::of_property(pattern_.substr(position_, end - position_));
    if (!set) return std::nullopt;
    position_ = end + 1;
    return Escape{negated ? set->complement() : *std::move(set), {}};
  }

  std::optional<Escape> parse_hex(int min_digits, int max_digits, std::string_view end) {
    char32_t value = 0;
    int num_digits = 0;
    for (; num_digits < max_digits && !at_end(); ++num_digits, ++position_) {
      const char c = pattern_[position_];
      if (c >= '0' && c <= '9') {
        value = value * 16 + (c - '0');
      } else if (c >= 'a' && c <= 'f') {
        value = value * 16 + (c - 'a' + 10);
      } else if (c >= 'A' && c <= 'F') {
        value = value * 16 + (c - 'A' + 10);
      } else {
        break;
      }
    }
    // \x80 to \xFF without braces are bytes in this dialect, not code points.
    if (num_digits < min_digits || (max_digits == 2 && value >= 0x80)) return std::nullopt;
    if (!accept(end) || value > kMaxCodePoint) return std::nullopt;
    return literal(value);
  }

  // After '['; reads up to and with the closing bracket.
  std::optional<CodePointSet> parse_class(int depth) {
    if (depth > kMaxDepth) return std::nullopt;
    const bool negated = accept("^");
    if (looking_at("]") || looking_at(":")) return std::nullopt;  // literal, or a POSIX class
    CodePointSet set;
    std::optional<CodePointSet> left_of_and;
    while (!accept("]")) {
      if (at_end()) return std::nullopt;
      if (accept("&&")) {
        left_of_and = left_of_and ? left_of_and->intersected(set) : std::move(set);
        set = CodePointSet();
        continue;
      }
      if (accept("[")) {
        std::optional<CodePointSet> nested = parse_class(depth + 1);
        if (!nested) return std::nullopt;
        set = set.united(*nested);
        continue;
      }
      std::optional<Escape> first = parse_class_item();
      if (!first) return std::nullopt;
      if (looking_at("-") && !looking_at("-]")) {
        accept("-");
        if (!first->code_point || looking_at("[") || looking_at("&&")) return std::nullopt;
        const std::optional<Escape> last = at_end() ? std::nullopt : parse_class_item();
        if (!last || !last->code_point || *last->code_point < *first->code_point) {
          return std::nullopt;
        }
        first->set = CodePointSet({{*first->code_point, *last->code_point}});
      }
      set = set.united(first->set);
    }
    if (left_of_and) set = left_of_and->intersected(set);
    return negated ? set.complement() : set;
  }

  std::optional<Escape> parse_class_item() {
    if (accept("\\")) return parse_escape(/*in_class=*/true);
    return literal(take());
  }

  std::string_view pattern_;
  size_t position_ = 0;
};

}  // namespace

std::optional<RegexNode> parse_regex(std::string_view pattern) {
  return Parser(pattern).parse();
}

}  // namespace augur
