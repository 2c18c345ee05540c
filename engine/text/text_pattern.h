// What Split and Replace look for in a text: a fixed string or a regular expression.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "engine/text/pcre_regex.h"
#include "engine/text/regex_automaton.h"

namespace augur {

/// Immutable; any number of threads may search with it.
class TextPattern {
 public:
  struct Match {
    size_t begin;
    size_t end;
  };

  static TextPattern from_string(std::string text);
  /// Runs as an automaton when it can, else on PCRE2. Throws ConfigError(where, ...) when the
  /// expression is wrong or not supported.
  static TextPattern from_regex(std::string_view regex, const std::string& where);
  /// As from_regex, but always on PCRE2; the other side of differential tests.
  static TextPattern from_regex_on_pcre2(std::string_view regex, const std::string& where);

  /// The first match at or after `start`, a character boundary of `text`, well-formed UTF-8.
  std::optional<Match> find(std::string_view text, size_t start) const;

  /// The fixed string, or nothing for an expression.
  const std::string* fixed_string() const { return std::get_if<std::string>(&matcher_); }
  bool runs_as_automaton() const { return std::holds_alternative<RegexAutomaton>(matcher_); }

 private:
  using Matcher = std::variant<std::string, RegexAutomaton, PcreRegex>;
  explicit TextPattern(Matcher matcher) : matcher_(std::move(matcher)) {}
  Matcher matcher_;
};

/// Walks the matches of a pattern in a text, left to right, without overlap. An empty match counts
/// unless it touches the end of the match before it.
class MatchCursor {
 public:
  MatchCursor(const TextPattern& pattern, std::string_view text) : pattern_(pattern), text_(text) {}
  std::optional<TextPattern::Match> next();

 private:
  const TextPattern& pattern_;
  std::string_view text_;
  size_t position_ = 0;
  std::optional<size_t> previous_end_;
};

/// Appends `text` with every match of `pattern` replaced by `content` to `out`. Empty text has no
/// matches, not even empty ones.
void append_replaced(const TextPattern& pattern,
                     std::string_view text,
                     std::string_view content,
                     std::string& out);

}  // namespace augur
