#include "cache/expert_key.h"

#include <gtest/gtest.h>

#include <unordered_set>

namespace augur {
namespace {

TEST(ExpertKey, IsOrderedByLayerThenExpert) {
  EXPECT_LT((ExpertKey{0, 9}), (ExpertKey{1, 0}));
  EXPECT_LT((ExpertKey{1, 0}), (ExpertKey{1, 1}));
  EXPECT_EQ((ExpertKey{2, 3}), (ExpertKey{2, 3}));
}

TEST(ExpertKey, HashesOfALargeModelDifferInTheirLowBits) {
  // Hash tables use the low bits: 61 layers of 256 experts in 2^20 places should rarely meet.
  std::unordered_set<size_t> places;
  for (int layer = 0; layer < 61; ++layer) {
    for (int expert = 0; expert < 256; ++expert) {
      places.insert(std::hash<ExpertKey>()({layer, expert}) % (size_t{1} << 20));
    }
  }
  EXPECT_GT(places.size(), 15'400);  // of 15,616; chance alone leaves about 15,500
}

}  // namespace
}  // namespace augur
