// The automaton against PCRE2, and both against the reference where the dialects differ.
#include "engine/text/text_pattern.h"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "configs/config_error.h"
#include "engine/text/code_point_set.h"
#include "engine/text/utf8.h"
#include "tests/text/tokenizer_test_data.h"

namespace augur {
namespace {

using Matches = std::vector<std::pair<size_t, size_t>>;

Matches find_all(const TextPattern& pattern, std::string_view text) {
  Matches matches;
  MatchCursor cursor(pattern, text);
  while (const auto match = cursor.next()) matches.emplace_back(match->begin, match->end);
  return matches;
}

constexpr const char* kContractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";

// The split patterns of published tokenizers, and some that try the corners of the automaton.
std::vector<std::string> automaton_patterns() {
  const std::string c = kContractions;
  return {
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
      c + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      c + R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)" + c +
          R"(?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" + c +
          R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"(\p{N}{1,3})",
      "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)"
      R"(| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"(a+?b|a(?=c)|(?:ab|a)(?:c|bcd)?|b??c)",
      R"((?:a|b)*c|x{2,4}|(?:xy){1,2}|[^\x00-\x7f]{2})",
      R"(\s{2,}(?=\n)|\d+|\D)",
  };
}

// Code points that say the same to utf8proc (which the automaton asks) and to PCRE2: the two
// follow different versions of Unicode, so newer letters differ.
std::vector<char32_t> agreed_code_points() {
  std::vector<CodePointSet> sets;
  std::vector<PcreRegex> regexes;
  for (const std::string name : {"Lu", "Ll", "Lt", "Lm", "Lo", "M", "N", "P", "S", "Z", "C"}) {
    sets.push_back(*CodePointSet::of_property(name));
    regexes.push_back(PcreRegex::compile("\\p{" + name + "}", "test"));
  }
  std::vector<char32_t> agreed;
  int num_different = 0;
  for (char32_t c = 0; c < 0x20000; c += c < 0x3000 ? 1 : 7) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(c, text);
    bool agrees = true;
    for (size_t i = 0; i < sets.size(); ++i) {
      agrees = agrees && sets[i].contains(c) == regexes[i].find(text, 0).has_value();
    }
    if (agrees) {
      agreed.push_back(c);
    } else {
      ++num_different;
    }
  }
  EXPECT_LT(num_different, 100);
  return agreed;
}

// Text of few kinds of characters at a time, so that long matches and near misses come up.
std::string random_text(std::mt19937& generator, const std::vector<char32_t>& any) {
  static const std::u32string kSmall =
      U" \n\r\t'stremvlSTKabcxyABC019./!-\u00a0\u3000\u00e9\u00c9"
      U"\u4f60\u3042\u0301\u017f\u212a\u01c5\u02b0\U0001f642";
  std::string text;
  const int num_runs = 1 + static_cast<int>(generator() % 12);
  for (int run = 0; run < num_runs; ++run) {
    const bool is_any = generator() % 4 == 0;
    const char32_t repeated = kSmall[generator() % kSmall.size()];
    const bool repeats = generator() % 3 == 0;
    for (int i = static_cast<int>(generator() % 6); i >= 0; --i) {
      append_utf8(is_any    ? any[generator() % any.size()]
                  : repeats ? repeated
                            : kSmall[generator() % kSmall.size()],
                  text);
    }
  }
  return text;
}

TEST(TextPattern, AutomatonMatchesAsPcre2DoesOnRandomText) {
  const std::vector<char32_t> any = agreed_code_points();
  std::mt19937 generator(11);
  for (const std::string& regex : automaton_patterns()) {
    const TextPattern automaton = TextPattern::from_regex(regex, "test");
    const TextPattern pcre2 = TextPattern::from_regex_on_pcre2(regex, "test");
    ASSERT_TRUE(automaton.runs_as_automaton()) << regex;
    ASSERT_FALSE(pcre2.runs_as_automaton());
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(generator, any);
      ASSERT_EQ(find_all(automaton, text), find_all(pcre2, text)) << regex << "\n" << text;
    }
  }
}

TEST(TextPattern, AutomatonMatchesAsPcre2DoesOnRealText) {
  const std::string text = eval_text();
  for (const std::string& regex : automaton_patterns()) {
    EXPECT_EQ(find_all(TextPattern::from_regex(regex, "test"), text),
              find_all(TextPattern::from_regex_on_pcre2(regex, "test"), text))
        << regex;
  }
}

TEST(TextPattern, LeavesToPcre2WhatAnAutomatonCannotRun) {
  for (const std::string regex :
       {"(?<=a)b", "^a", "a$", "a++", "(a)\\1", "\\bx", "\\p{Han}", "[[:alpha:]]", "(?!ab)c",
        "(?:[ab]{1000}){1000}", "(?i:\u00e9)"}) {
    try {
      EXPECT_FALSE(TextPattern::from_regex(regex, "test").runs_as_automaton()) << regex;
    } catch (const ConfigError&) {  // too large for PCRE2 as well
    }
  }
}

TEST(TextPattern, CountsEmptyMatchesOnce) {
  const TextPattern pattern = TextPattern::from_regex("x*", "test");
  EXPECT_EQ(find_all(pattern, "axxb"), (Matches{{0, 0}, {1, 3}, {4, 4}}));
  EXPECT_EQ(find_all(TextPattern::from_regex_on_pcre2("x*", "test"), "axxb"),
            find_all(pattern, "axxb"));
  EXPECT_EQ(find_all(TextPattern::from_string(""), "\u4f60"), (Matches{{0, 0}, {3, 3}}));
}

TEST(TextPattern, FindsFixedStrings) {
  const TextPattern pattern = TextPattern::from_string("aa");
  ASSERT_NE(pattern.fixed_string(), nullptr);
  EXPECT_EQ(find_all(pattern, "aaaab"), (Matches{{0, 2}, {2, 4}}));
  EXPECT_EQ(find_all(TextPattern::from_string("."), "a.b"), (Matches{{1, 2}}));
}

// Where backtracking runs out of the compiled code's stack, or of PCRE2's default limits.
TEST(TextPattern, Pcre2TakesLongTexts) {
  const std::string spaces(1 << 20, ' ');
  for (const std::string regex :
       {R"(\s+(?!\S)|\s+)", R"(\s*[\r\n]+|\s+)", R"((?:\s|x)+)", R"((?:\s{1,3}|x)+(?!\S))"}) {
    const TextPattern pattern = TextPattern::from_regex_on_pcre2(regex, "test");
    EXPECT_EQ(find_all(pattern, spaces), (Matches{{0, spaces.size()}})) << regex;
  }
}

TEST(TextPattern, Pcre2StopsWhereWorkOutgrowsTheText) {
  const TextPattern pattern = TextPattern::from_regex("(?<!a)(x+x+)+[yz]", "test");
  ASSERT_FALSE(pattern.runs_as_automaton());
  EXPECT_THROW(pattern.find(std::string(60, 'x') + "!", 0), std::runtime_error);
}

TEST(CodePointSet, CombinesAsSetsDo) {
  const CodePointSet letters({{'a', 'z'}, {'A', 'Z'}});
  const CodePointSet vowels({{'a', 'a'}, {'e', 'e'}});
  EXPECT_TRUE(letters.contains('q'));
  EXPECT_FALSE(letters.contains('['));
  EXPECT_EQ(letters.intersected(vowels), vowels);
  EXPECT_EQ(letters.united(vowels), letters);
  EXPECT_EQ(letters.complement().complement(), letters);
  EXPECT_EQ(CodePointSet().complement(), CodePointSet::all());
  EXPECT_EQ(CodePointSet({{5, 9}, {1, 3}, {4, 4}}), CodePointSet({{1, 9}}));
  EXPECT_TRUE(vowels.case_folded()->contains('E'));
  EXPECT_TRUE(CodePointSet::of('S').case_folded()->contains(0x17F));
  EXPECT_EQ(CodePointSet::of(0xE9).case_folded(), std::nullopt);
  EXPECT_EQ(CodePointSet::of_property("Nope"), std::nullopt);
}

TEST(TranslateToPcre2, RewritesWhatTheDialectsSpellAlike) {
  const auto translated = [](std::string_view regex) { return translate_to_pcre2(regex, "test"); };
  EXPECT_EQ(translated(R"(a{1,2}+)"), "(?:a{1,2})+");
  EXPECT_EQ(translated(R"((ab){2}+c)"), "(?:(ab){2})+c");
  EXPECT_EQ(translated(R"(x{,3})"), "x{0,3}");
  EXPECT_EQ(translated(R"(a{x)"), R"(a\{x)");
  EXPECT_EQ(translated(R"((?m:.)(?i-m)x)"), "(?s:.)(?i-s)x");
  EXPECT_EQ(translated(R"(\h\u00e9)"), R"([0-9A-Fa-f]\x{00e9})");
  EXPECT_EQ(translated(R"(\p{Han}\p{^Lu}\P{L})"), R"(\p{sc:Han}\p{^Lu}\P{L})");
  EXPECT_EQ(translated(R"([[:digit:]\]x])"), R"([\p{Nd}\]x])");
  EXPECT_EQ(translated("\u00e9{1,2}+"), "(?:\u00e9{1,2})+");
  EXPECT_THROW(translated("[[:alpha:]]"), ConfigError);
  EXPECT_THROW(translated("[[:digit"), ConfigError);
  EXPECT_THROW(translated("[a[b]]"), ConfigError);
  EXPECT_THROW(translated("[a&&b]"), ConfigError);
}

}  // namespace
}  // namespace augur
