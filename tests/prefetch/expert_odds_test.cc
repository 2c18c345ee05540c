#include "prefetch/expert_odds.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

namespace augur {
namespace {

constexpr int kNumExperts = 8;
constexpr int kWidth = 3;

// Rank r of predictor p has come true in some share of many rows.
Calibration make_calibration(int num_predictors) {
  Calibration::Options options;
  options.num_predictors = num_predictors;
  options.max_distance = 1;
  options.width = kWidth;
  Calibration calibration(options);
  for (int p = 0; p < num_predictors; ++p) {
    for (int i = 0; i < 60; ++i) {
      const std::vector<uint8_t> is_chosen = {i % (p + 2) != 0, i % 2 == 0, i % (p + 4) == 0};
      calibration.record(p, 1, std::vector<int32_t>{0, 1, 2}, is_chosen, 2);
    }
  }
  return calibration;
}

TEST(OddsOfRowsTest, BelievesTheSurestPredictorAndCombinesRows) {
  const Calibration calibration = make_calibration(2);
  std::vector<int32_t> first = {3, 5, -1, 3, -1, -1};
  std::vector<int32_t> second = {5, -1, -1, -1, -1, -1};
  OddsOfRows odds(kNumExperts);
  odds.add(std::vector<Guesses>{{first, 2, kWidth}, {second, 2, kWidth}}, 1, calibration);
  const double p00 = calibration.precision(0, 1, 0);
  const double p01 = calibration.precision(0, 1, 1);
  const double p10 = calibration.precision(1, 1, 0);
  EXPECT_DOUBLE_EQ(odds.probability(3), 1 - (1 - p00) * (1 - p00)) << "two rows";
  EXPECT_NEAR(odds.probability(5), std::max(p01, p10), 1e-12) << "one row, two predictors";
  EXPECT_EQ(odds.probability(0), 0);
  odds.clear();
  EXPECT_EQ(odds.probability(3), 0);
}

TEST(OddsOfRowsTest, MatchesBruteForce) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    const int num_predictors = 1 + static_cast<int>(random() % 3);
    const int64_t num_rows = 1 + static_cast<int64_t>(random() % 5);
    const Calibration calibration = make_calibration(num_predictors);
    std::vector<std::vector<int32_t>> experts(num_predictors);
    std::vector<Guesses> guesses;
    for (std::vector<int32_t>& of : experts) {
      of.assign(num_rows * kWidth, -1);
      std::vector<int32_t> all(kNumExperts);
      std::iota(all.begin(), all.end(), 0);
      for (int64_t row = 0; row < num_rows; ++row) {
        std::shuffle(all.begin(), all.end(), random);
        std::copy_n(all.begin(), random() % (kWidth + 1), of.begin() + row * kWidth);
      }
      guesses.push_back({of, num_rows, kWidth});
    }
    OddsOfRows odds(kNumExperts);
    odds.add(guesses, 1, calibration);
    for (int expert = 0; expert < kNumExperts; ++expert) {
      double unused = 1;
      for (int64_t row = 0; row < num_rows; ++row) {
        double best = 0;
        for (int p = 0; p < num_predictors; ++p) {
          for (int rank = 0; rank < kWidth; ++rank) {
            if (experts[p][row * kWidth + rank] == expert) {
              best = std::max(best, calibration.precision(p, 1, rank));
            }
          }
        }
        unused *= 1 - best;
      }
      EXPECT_NEAR(odds.probability(expert), 1 - unused, 1e-12);
    }
  }
}

}  // namespace
}  // namespace augur
