#include "cache/key_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cache/lru_order.h"
#include "tests/kernels/available_isas.h"

namespace augur {
namespace {

class KeyRowsTest : public ::testing::TestWithParam<cpu::Isa> {};
INSTANTIATE_TEST_SUITE_P(Isas,
                         KeyRowsTest,
                         ::testing::ValuesIn(cpu::available_isas()),
                         cpu::isa_test_name);

KeyRows::Nearest by_brute_force(const std::vector<Key>& rows, const Key& key) {
  KeyRows::Nearest best;
  for (int row = 0; row < std::ssize(rows); ++row) {
    const float value = cosine(rows[row], key);
    if (value > best.cosine) best = {row, value};
  }
  return best;
}

TEST_P(KeyRowsTest, FindsWhatBruteForceFinds) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  int num_found = 0;
  for (int round = 0; round < 300; ++round) {
    const int dims = 1 + static_cast<int>(random() % Key::kMaxDims);
    const int num_rows = 1 + static_cast<int>(random() % 70);
    KeyRows rows(num_rows, dims, GetParam());
    std::vector<Key> set;
    std::vector<float> values(dims);
    for (int row = 0; row < num_rows; ++row) {
      for (int look_up = 0; look_up < 2; ++look_up) {
        for (float& value : values) value = normal(random);
        // Some at the ends of the int8 range, where products are largest.
        if (random() % 8 == 0) {
          for (float& value : values) value = std::copysign(1.0f, value);
        }
        const Key key = Key::of(values.data(), dims);
        const KeyRows::Nearest found = rows.nearest(key, row);
        const KeyRows::Nearest expected = by_brute_force(set, key);
        ASSERT_EQ(found.row, expected.row) << "round " << round << ", " << row << " rows";
        if (found.row >= 0) {
          ASSERT_FLOAT_EQ(found.cosine, expected.cosine);
          ++num_found;
        }
        if (look_up == 1) {
          set.push_back(key);
          rows.set(row, key);
        }
      }
    }
  }
  EXPECT_GT(num_found, 5000);
}

TEST_P(KeyRowsTest, TheLowerRowWinsAmongEquals) {
  const float values[] = {1, 2, -3};
  const Key key = Key::of(values, 3);
  KeyRows rows(40, 3, GetParam());
  for (const int row : {35, 20, 4, 19}) rows.set(row, key);
  EXPECT_EQ(rows.nearest(key, 40).row, 4);
  rows.set(3, key);
  EXPECT_EQ(rows.nearest(key, 40).row, 3);
  EXPECT_NEAR(rows.nearest(key, 40).cosine, 1, 1e-6);
}

TEST(KeyTest, KeepsDirectionsAtAnyScale) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (const int dims : {3, 16, 64}) {
    for (const float scale : {1e-12f, 1.0f, 1e12f}) {
      std::vector<float> a(dims), b(dims);
      double ab = 0, aa = 0, bb = 0;
      for (int d = 0; d < dims; ++d) {
        a[d] = normal(random) * scale;
        b[d] = a[d] + 0.3f * normal(random) * scale;
        ab += double{a[d]} * b[d];
        aa += double{a[d]} * a[d];
        bb += double{b[d]} * b[d];
      }
      const float quantised = cosine(Key::of(a.data(), dims), Key::of(b.data(), dims));
      EXPECT_NEAR(quantised, ab / std::sqrt(aa * bb), 0.005) << dims << " at " << scale;
    }
  }
}

TEST(KeyTest, WhatHasNoDirectionIsLikeNothing) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const float one[] = {1, 0, 0};
  KeyRows rows(1, 3);
  for (const auto& values :
       std::vector<std::vector<float>>{{0, 0, 0}, {1e-38f, 0, 0}, {1, nan, 1}, {1, infinity, 1}}) {
    const Key key = Key::of(values.data(), 3);
    EXPECT_EQ(key.inverse_norm, 0);
    rows.set(0, key);
    EXPECT_EQ(rows.nearest(Key::of(one, 3), 1).row, -1);
    rows.set(0, Key::of(one, 3));
    EXPECT_EQ(rows.nearest(key, 1).row, -1);
  }
}

TEST(LruOrderTest, AgreesWithAList) {
  std::mt19937 random(3);
  constexpr int kCount = 9;
  LruOrder order(kCount);
  std::vector<int> expected;
  for (int round = 0; round < 5000; ++round) {
    const int item = static_cast<int>(random() % kCount);
    std::erase(expected, item);
    if (random() % 3 == 0) {
      order.remove(item);
    } else {
      order.touch(item);
      expected.push_back(item);
    }
    ASSERT_EQ(order.oldest(), expected.empty() ? -1 : expected.front());
  }
}

}  // namespace
}  // namespace augur
