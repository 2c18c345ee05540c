#include "engine/text/merge_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace augur {
namespace {

// The definition, word for word: merge the pair of lowest rank, leftmost first, and start over.
std::vector<int32_t> merge_plainly(
    std::vector<int32_t> tokens,
    const std::map<std::pair<int32_t, int32_t>, MergeTable::Merge>& merges) {
  for (;;) {
    size_t best = tokens.size();
    uint32_t best_rank = MergeTable::kNoRank;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto found = merges.find({tokens[i], tokens[i + 1]});
      if (found != merges.end() && found->second.rank < best_rank) {
        best = i;
        best_rank = found->second.rank;
      }
    }
    if (best == tokens.size()) return tokens;
    tokens[best] = merges.at({tokens[best], tokens[best + 1]}).merged;
    tokens.erase(tokens.begin() + best + 1);
  }
}

// Sizes on both sides of where the heap takes over from the plain search.
TEST(MergeTable, MergesByTheDefinitionAtAnyLength) {
  std::mt19937 generator(5);
  for (int round = 0; round < 60; ++round) {
    // Ranks that do not follow the order in which tokens come about are as good as any.
    const int32_t num_tokens = 30;
    MergeTable table;
    table.reserve(60);
    std::map<std::pair<int32_t, int32_t>, MergeTable::Merge> merges;
    for (uint32_t rank = 0; rank < 60; ++rank) {
      const int32_t left = static_cast<int32_t>(generator() % num_tokens);
      const int32_t right = static_cast<int32_t>(generator() % num_tokens);
      const int32_t merged =
          std::min(std::max(left, right) + 1 + static_cast<int32_t>(generator() % 4), 40);
      if (!merges.try_emplace({left, right}, MergeTable::Merge{rank, merged}).second) continue;
      table.add(left, right, {rank, merged});
    }
    MergeTable::Scratch scratch;
    for (const size_t length : {0, 1, 2, 3, 17, 47, 48, 49, 50, 200, 1000}) {
      std::vector<int32_t> tokens(length);
      for (int32_t& token : tokens) token = static_cast<int32_t>(generator() % 6);
      const std::vector<int32_t> expected = merge_plainly(tokens, merges);
      tokens.resize(table.apply(tokens, scratch));
      ASSERT_EQ(tokens, expected) << length << " tokens";
    }
  }
}

TEST(MergeTable, MergesNothingWhenEmpty) {
  const MergeTable table;
  MergeTable::Scratch scratch;
  std::vector<int32_t> tokens = {1, 2, 3};
  EXPECT_EQ(table.apply(tokens, scratch), 3u);
}

TEST(MergeTable, TakesTheLaterOfTwoMergesOfOnePair) {
  MergeTable table;
  table.reserve(2);
  table.add(1, 2, {0, 7});
  table.add(1, 2, {5, 8});
  EXPECT_EQ(table.find(1, 2).rank, 5u);
  EXPECT_EQ(table.find(1, 2).merged, 8);
  EXPECT_EQ(table.find(2, 1).rank, MergeTable::kNoRank);
}

}  // namespace
}  // namespace augur
