#include "tools/score/line_set.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace augur::score {
namespace {

LineSet lines(std::initializer_list<int64_t> numbers) {
  LineSet set;
  for (const int64_t number : numbers) set.insert(number);
  return set;
}

TEST(LineSet, IsWrittenAsRanges) {
  EXPECT_EQ(lines({}).to_string(), "");
  EXPECT_EQ(lines({3, 1, 2, 9}).to_string(), "1-3,9");
}

TEST(LineSet, JoinsRangesThatTouchOrOverlap) {
  LineSet set = lines({1, 5});
  set.insert_range(2, 4);
  EXPECT_EQ(set.to_string(), "1-5");
  set.insert_range(3, 9);
  EXPECT_EQ(set.to_string(), "1-9");
  set.insert_range(20, 30);
  set.insert_range(8, 40);
  EXPECT_EQ(set.to_string(), "1-40");
}

TEST(LineSet, AgreesWithAPlainSetUnderRandomInsertions) {
  std::mt19937 random(1);
  LineSet set;
  std::set<int64_t> plain;
  for (int i = 0; i < 300; ++i) {
    const auto first = static_cast<int64_t>(random() % 400 + 1);
    const auto last = first + static_cast<int64_t>(random() % 4);
    set.insert_range(first, last);
    for (int64_t line = first; line <= last; ++line) plain.insert(line);
    ASSERT_EQ(set.size(), static_cast<int64_t>(plain.size()));
    ASSERT_EQ(set.max(), *plain.rbegin());
  }
  for (int64_t line = 0; line < 410; ++line) ASSERT_EQ(set.contains(line), plain.contains(line));
  EXPECT_EQ(LineSet::parse(set.to_string()), set);
}

TEST(LineSet, TakesItsSmallestLines) {
  const LineSet set = lines({2, 3, 4, 8, 9});
  EXPECT_EQ(set.first_lines(0).to_string(), "");
  EXPECT_EQ(set.first_lines(2).to_string(), "2-3");
  EXPECT_EQ(set.first_lines(4).to_string(), "2-4,8");
  EXPECT_EQ(set.first_lines(99).to_string(), "2-4,8-9");
}

TEST(LineSet, ParsesOnlyItsOwnForm) {
  EXPECT_EQ(LineSet::parse("1-3,9")->to_string(), "1-3,9");
  EXPECT_TRUE(LineSet::parse("")->empty());
  for (const char* bad : {"x", "0", "1-", "-1", "3-1", "5,4", "1,,2", "1,", "1-3x",
                          "9223372036854775807", "99999999999999999999"})
    EXPECT_FALSE(LineSet::parse(bad)) << bad;
}

}  // namespace
}  // namespace augur::score
