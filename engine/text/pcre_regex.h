// A regular expression of the Oniguruma dialect (Ruby syntax) run by PCRE2, for the patterns that
// a finite automaton cannot run.
//
// The two dialects write mostly the same things; translate_to_pcre2 rewrites what they spell
// alike but mean differently: \s \S \w \W \b \B \h \H, \uHHHH, x{n,m}+ (a repeated repeat, not a
// possessive one), {,n}, (?m:..), POSIX classes, property names that are scripts. Anchors ^ and $
// are per line. What has no counterpart (class intersection, nested classes) is refused. Letters
// that fold to several ("ss" to sharp s, under (?i)) match only themselves in both cases.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace augur {

/// Immutable after compile; any number of threads may search with it.
class PcreRegex {
 public:
  struct Match {
    size_t begin;
    size_t end;
  };

  /// Throws ConfigError(where, ...) with PCRE2's message and the place when the pattern is wrong.
  static PcreRegex compile(std::string_view pattern, const std::string& where);

  /// The first match at or after `start`, a character boundary of `text`, well-formed UTF-8.
  /// Long texts and deep backtracking are no reason to stop; work that grows faster than the text
  /// or needs more than 1 GiB to backtrack is, by std::runtime_error.
  std::optional<Match> find(std::string_view text, size_t start) const;

  PcreRegex(PcreRegex&&) noexcept;
  PcreRegex& operator=(PcreRegex&&) noexcept;
  ~PcreRegex();

 private:
  struct Code;
  explicit PcreRegex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

/// The PCRE2 spelling of an Oniguruma pattern. Throws ConfigError(where, ...) for what PCRE2
/// cannot do.
std::string translate_to_pcre2(std::string_view pattern, const std::string& where);

}  // namespace augur
