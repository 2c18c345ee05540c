#include "engine/schedule/stop_strings.h"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace augur {
namespace {

struct Outcome {
  std::string text;
  std::string stop;  // empty: none
  bool operator==(const Outcome&) const = default;
};

Outcome run(const std::vector<std::string>& stops,
            const std::vector<std::string>& pieces,
            bool include_stop = false) {
  const StopStrings prepared(stops);
  StopMatcher matcher(prepared, include_stop);
  Outcome outcome;
  for (const std::string& piece : pieces) {
    const int match = matcher.push(piece, /*may_match=*/true, outcome.text);
    if (match != StopMatcher::kNoMatch) {
      outcome.stop = prepared[match];
      return outcome;
    }
  }
  matcher.finish(outcome.text);
  return outcome;
}

/// The rule of the header, by brute force over the whole text.
Outcome search(const std::vector<std::string>& stops, const std::string& text, bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      const bool is_here = std::string_view(text).substr(0, end).ends_with(stop);
      if (is_here && stop.size() > longest.size()) longest = stop;
    }
    if (longest.empty()) continue;
    return {text.substr(0, include_stop ? end : end - longest.size()), longest};
  }
  return {text, ""};
}

std::vector<std::string> cut(const std::string& text, unsigned cuts) {
  std::vector<std::string> pieces(1);
  for (size_t i = 0; i < text.size(); ++i) {
    pieces.back() += text[i];
    if (cuts >> i & 1) pieces.emplace_back();
  }
  return pieces;
}

TEST(StopStringsTest, FindsAStopAtEverySplitOfTheText) {
  const std::string text = "one STOP two";
  for (unsigned cuts = 0; cuts < 1u << text.size(); ++cuts) {
    ASSERT_EQ(run({"STOP"}, cut(text, cuts)), (Outcome{"one ", "STOP"})) << cuts;
    ASSERT_EQ(run({"STOP"}, cut(text, cuts), /*include_stop=*/true), (Outcome{"one STOP", "STOP"}));
  }
}

TEST(StopStringsTest, HoldsBackNoMoreThanCouldBecomeAStop) {
  const StopStrings stops(std::vector<std::string>{"abc", "bd"});
  StopMatcher matcher(stops, /*include_stop=*/false);
  std::string text;
  matcher.push("xxab", true, text);
  EXPECT_EQ(text, "xx");
  matcher.push("b", true, text);  // only this b could begin "bd"
  EXPECT_EQ(text, "xxab");
  matcher.push("z", true, text);
  EXPECT_EQ(text, "xxabbz");
  matcher.push("ab", true, text);
  matcher.finish(text);
  EXPECT_EQ(text, "xxabbzab");
}

TEST(StopStringsTest, TheFirstCompleteStopWins) {
  EXPECT_EQ(run({"bc", "abcd"}, {"abcd"}), (Outcome{"a", "bc"}));
  EXPECT_EQ(run({"\n\n", "\n"}, {"x\n\ny"}), (Outcome{"x", "\n"}));
}

TEST(StopStringsTest, OfStopsEndingTogetherTheLongestWins) {
  EXPECT_EQ(run({"c", "abc", "bc"}, {"xab", "cd"}), (Outcome{"x", "abc"}));
}

TEST(StopStringsTest, AStopThatDoesNotCountStaysInTheText) {
  const StopStrings stops(std::vector<std::string>{"ab"});
  StopMatcher matcher(stops, /*include_stop=*/false);
  std::string text;
  EXPECT_EQ(matcher.push("ab", /*may_match=*/false, text), StopMatcher::kNoMatch);
  EXPECT_EQ(text, "ab");
  EXPECT_EQ(matcher.push("a", /*may_match=*/false, text), StopMatcher::kNoMatch);
  EXPECT_EQ(matcher.push("b", /*may_match=*/true, text), 0);
  EXPECT_EQ(text, "ab");
}

TEST(StopStringsTest, WithoutStopsTextPassesThrough) {
  EXPECT_EQ(run({}, {"a", "", "b"}), (Outcome{"ab", ""}));
}

TEST(StopStringsTest, RefusesAnEmptyStop) {
  EXPECT_THROW(StopStrings(std::vector<std::string>{""}), std::logic_error);
}

TEST(StopStringsTest, AgreesWithASearchOfTheWholeText) {
  std::mt19937 random(7);
  const auto word = [&](size_t longest) {
    std::string text(random() % longest + 1, ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int i = 0; i < 5000; ++i) {
    std::vector<std::string> stops(random() % 4 + 1);
    for (std::string& stop : stops) stop = word(7);
    const std::string text = word(20);
    const bool include_stop = random() % 2 == 0;
    ASSERT_EQ(run(stops, cut(text, random()), include_stop), search(stops, text, include_stop))
        << text;
  }
}

TEST(StopStringsTest, CostDoesNotGrowWithTheTextBefore) {
  // A million bytes that keep almost matching; a search from the start for each would never end.
  const std::string almost(1000, 'a');
  const StopStrings stops(std::vector<std::string>{almost + "b"});
  StopMatcher matcher(stops, /*include_stop=*/false);
  std::string text;
  for (int i = 0; i < 200'000; ++i) matcher.push("aaaaa", /*may_match=*/true, text);
  EXPECT_EQ(text.size(), 1'000'000 - almost.size());
  EXPECT_EQ(matcher.push("b", /*may_match=*/true, text), 0);
  EXPECT_EQ(text.size(), 1'000'000 - almost.size());
}

}  // namespace
}  // namespace augur
