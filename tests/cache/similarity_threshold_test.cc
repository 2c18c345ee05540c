#include "cache/similarity_threshold.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <stdexcept>

namespace augur {
namespace {

// States are alike by a cosine drawn evenly from [0.7, 1]; how much choices agree depends on it. As
// when serving, a proven threshold is checked now and then, an unproven one at every hit.
class SimilarityThresholdTest : public ::testing::Test {
 protected:
  void run(int num_look_ups, const std::function<double(float cosine)>& agreement) {
    std::uniform_real_distribution<float> uniform(0.7f, 1.0f);
    for (int i = 0; i < num_look_ups; ++i) {
      const float cosine = uniform(random_);
      const bool is_hit = cosine >= threshold_.value();
      threshold_.on_look_up(is_hit);
      const bool is_checked = is_hit && (!threshold_.is_proven() || random_() % 16 == 0);
      if (is_checked) threshold_.on_check(agreement(cosine));
    }
  }

  ThresholdLimits limits_{.start = 0.92f, .lowest = 0.80f, .highest = 0.99f, .min_agreement = 0.9};
  SimilarityThreshold threshold_{limits_};
  std::mt19937 random_{1};
};

TEST_F(SimilarityThresholdTest, FallsToTheLowestWhereChoicesAgree) {
  run(40000, [](float) { return 1.0; });
  EXPECT_FLOAT_EQ(threshold_.value(), 0.80f);
  EXPECT_TRUE(threshold_.is_proven());
}

TEST_F(SimilarityThresholdTest, RisesAndGivesUpWhereChoicesDisagree) {
  float highest_seen = 0;
  for (int i = 0; i < 200 && !threshold_.is_hopeless(); ++i) {
    run(100, [](float) { return 0.3; });
    EXPECT_FALSE(threshold_.is_proven());
    EXPECT_GE(threshold_.value(), highest_seen) << "it never falls";
    highest_seen = threshold_.value();
  }
  EXPECT_TRUE(threshold_.is_hopeless());
  EXPECT_FLOAT_EQ(threshold_.value(), 0.99f);
  run(5000, [](float) { return 1.0; });
  EXPECT_TRUE(threshold_.is_hopeless()) << "for good";
}

TEST_F(SimilarityThresholdTest, SettlesWhereAgreementIsJustEnough) {
  // Above .95 choices agree well, below hardly: served at .9, a fifth would be wrong.
  const auto agreement = [](float cosine) { return cosine > 0.95f ? 0.97 : 0.4; };
  run(20000, agreement);
  int num_proven = 0;
  for (int i = 0; i < 200; ++i) {
    run(100, agreement);
    if (!threshold_.is_proven()) continue;
    ++num_proven;
    EXPECT_GT(threshold_.value(), 0.93f) << "a threshold that disagrees is hardly ever proven";
  }
  EXPECT_FALSE(threshold_.is_hopeless());
  EXPECT_GT(num_proven, 100) << "most of the time something can be served";
}

TEST_F(SimilarityThresholdTest, StaysWhereHardlyAnythingMisses) {
  for (int i = 0; i < 1000; ++i) {
    threshold_.on_look_up(true);
    threshold_.on_check(1.0);
  }
  EXPECT_FLOAT_EQ(threshold_.value(), 0.92f);
}

TEST_F(SimilarityThresholdTest, AnUnprovenThresholdNeedsAllOfItsChecks) {
  for (int i = 0; i < SimilarityThreshold::kChecksPerDecision; ++i) {
    EXPECT_FALSE(threshold_.is_proven());
    threshold_.on_look_up(true);
    threshold_.on_check(0.91);
  }
  EXPECT_TRUE(threshold_.is_proven());
}

TEST_F(SimilarityThresholdTest, RefusesLimitsOutOfOrder) {
  limits_.lowest = 0.95f;
  EXPECT_THROW(SimilarityThreshold{limits_}, std::logic_error);
  limits_.lowest = 0;
  EXPECT_THROW(SimilarityThreshold{limits_}, std::logic_error);
  EXPECT_THROW(SimilarityThreshold({.min_agreement = 1.5}), std::logic_error);
}

}  // namespace
}  // namespace augur
