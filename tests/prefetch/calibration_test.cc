#include "prefetch/calibration.h"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <vector>

namespace augur {
namespace {

Calibration::Options options() {
  Calibration::Options options;
  options.num_predictors = 2;
  options.max_distance = 2;
  options.width = 3;
  return options;
}

TEST(CalibrationTest, BeginsWithThePriorAndCountsFromThere) {
  Calibration::Options o = options();
  o.prior_precision = 0.25;
  o.prior_rows = 2;
  o.half_life_rows = 1e12;
  Calibration calibration(o);
  EXPECT_DOUBLE_EQ(calibration.precision(1, 2, 2), 0.25);
  EXPECT_EQ(calibration.recall(1, 2, 3), 0);
  const std::vector<uint8_t> is_chosen = {1, 0, 1, 1};
  for (int i = 0; i < 2; ++i) {
    calibration.record(1, 2, std::vector<int32_t>{0, 1, -1}, is_chosen, 3);
  }
  EXPECT_NEAR(calibration.precision(1, 2, 0), (2 + 0.5) / 4, 1e-9);
  EXPECT_NEAR(calibration.precision(1, 2, 1), 0.5 / 4, 1e-9);
  EXPECT_DOUBLE_EQ(calibration.precision(1, 2, 2), 0.25) << "it guessed nothing there";
  EXPECT_DOUBLE_EQ(calibration.precision(1, 1, 0), 0.25);
  EXPECT_DOUBLE_EQ(calibration.precision(0, 2, 0), 0.25);
  EXPECT_NEAR(calibration.recall(1, 2, 1), 1.0 / 3, 1e-9);
  EXPECT_EQ(calibration.num_rows(1, 2), 2);
  EXPECT_EQ(calibration.num_rows(1, 1), 0);
}

TEST(CalibrationTest, FindsTheTruePrecisionOfEveryRank) {
  // Rank r comes true with a chance of its own; expert r is guessed at rank r.
  Calibration calibration(options());
  const double truth[] = {0.9, 0.5, 0.1};
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(0, 1);
  const std::vector<int32_t> guesses = {0, 1, 2};
  for (int i = 0; i < 8000; ++i) {
    std::vector<uint8_t> is_chosen(3);
    int num_chosen = 0;
    for (int r = 0; r < 3; ++r) {
      is_chosen[r] = uniform(random) < truth[r];
      num_chosen += is_chosen[r];
    }
    calibration.record(0, 1, guesses, is_chosen, num_chosen);
  }
  // About 1,500 rows count: a deviation of 0.013 at a chance of one half.
  for (int r = 0; r < 3; ++r) EXPECT_NEAR(calibration.precision(0, 1, r), truth[r], 0.05);
  EXPECT_NEAR(calibration.recall(0, 1, 1), 0.9 / 1.5, 0.05);
  EXPECT_NEAR(calibration.recall(0, 1, 3), 1, 1e-9);
}

TEST(CalibrationTest, FollowsAChange) {
  Calibration::Options o = options();
  o.half_life_rows = 100;
  Calibration calibration(o);
  const std::vector<int32_t> guesses = {0};
  for (int i = 0; i < 1000; ++i) {
    calibration.record(0, 1, guesses, std::vector<uint8_t>{1}, 1);
  }
  EXPECT_GT(calibration.precision(0, 1, 0), 0.85);
  for (int i = 0; i < 100; ++i) {
    calibration.record(0, 1, guesses, std::vector<uint8_t>{0}, 0);
  }
  EXPECT_NEAR(calibration.precision(0, 1, 0), 0.5, 0.1);
}

TEST(CalibrationTest, RefusesWhatItHasNoPlaceFor) {
  Calibration calibration(options());
  EXPECT_THROW((void)calibration.precision(2, 1, 0), std::logic_error);
  EXPECT_THROW((void)calibration.precision(0, 0, 0), std::logic_error);
  EXPECT_THROW((void)calibration.precision(0, 3, 0), std::logic_error);
  EXPECT_THROW((void)calibration.precision(0, 1, 3), std::logic_error);
  Calibration::Options none = options();
  none.width = 0;
  EXPECT_THROW(Calibration{none}, std::logic_error);
}

}  // namespace
}  // namespace augur
