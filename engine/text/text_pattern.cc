#include "engine/text/text_pattern.h"

#include <utility>

#include "engine/text/utf8.h"

namespace augur {

TextPattern TextPattern::from_string(std::string text) {
  // The empty string matches between any two characters; as an expression it does the same.
  if (text.empty()) return from_regex("", "");
  return TextPattern(Matcher(std::in_place_type<std::string>, std::move(text)));
}

TextPattern TextPattern::from_regex(std::string_view regex, const std::string& where) {
  if (const std::optional<RegexNode> node = parse_regex(regex)) {
    if (std::optional<RegexAutomaton> automaton = RegexAutomaton::compile(*node)) {
      return TextPattern(Matcher(*std::move(automaton)));
    }
  }
  return from_regex_on_pcre2(regex, where);
}

TextPattern TextPattern::from_regex_on_pcre2(std::string_view regex, const std::string& where) {
  return TextPattern(Matcher(PcreRegex::compile(regex, where)));
}

std::optional<TextPattern::Match> TextPattern::find(std::string_view text, size_t start) const {
  if (const auto* automaton = std::get_if<RegexAutomaton>(&matcher_)) {
    const auto match = automaton->find(text, start);
    if (!match) return std::nullopt;
    return Match{match->begin, match->end};
  }
  if (const auto* fixed = std::get_if<std::string>(&matcher_)) {
    const size_t begin = text.find(*fixed, start);
    if (begin == std::string_view::npos) return std::nullopt;
    return Match{begin, begin + fixed->size()};
  }
  const auto match = std::get<PcreRegex>(matcher_).find(text, start);
  if (!match) return std::nullopt;
  return Match{match->begin, match->end};
}

std::optional<TextPattern::Match> MatchCursor::next() {
  while (position_ <= text_.size()) {
    const auto match = pattern_.find(text_, position_);
    if (!match) {
      position_ = text_.size() + 1;
      return std::nullopt;
    }
    if (match->begin == match->end && previous_end_ == match->end) {
      if (match->end == text_.size()) {
        position_ = text_.size() + 1;
      } else {
        position_ = match->end;
        next_code_point(text_, position_);
      }
      continue;
    }
    position_ = match->end;
    previous_end_ = match->end;
    return match;
  }
  return std::nullopt;
}

void append_replaced(const TextPattern& pattern,
                     std::string_view text,
                     std::string_view content,
                     std::string& out) {
  if (text.empty()) return;
  size_t copied = 0;
  MatchCursor cursor(pattern, text);
  while (const auto match = cursor.next()) {
    out.append(text.substr(copied, match->begin - copied));
    out.append(content);
    copied = match->end;
  }
  out.append(text.substr(copied));
}

}  // namespace augur
