#include "tools/serve_bench/arrivals.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

namespace augur::serve_bench {
namespace {

constexpr int kNumGaps = 40000;

struct Gaps {
  double mean = 0;
  double variation = 0;  // standard deviation / mean
};

Gaps gaps_of(Arrivals arrivals) {
  double last = arrivals.next_s();
  EXPECT_EQ(last, 0);  // the first comes at once
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < kNumGaps; ++i) {
    const double next = arrivals.next_s();
    EXPECT_GE(next, last);
    sum += next - last;
    squares += (next - last) * (next - last);
    last = next;
  }
  const double mean = sum / kNumGaps;
  return {mean, std::sqrt(squares / kNumGaps - mean * mean) / mean};
}

// Of 40000 gaps the mean is within 1 / 200 of the variation, 1 sigma; 5 of them are allowed.
TEST(Arrivals, PoissonGapsHaveTheMeanAndTheSpreadOfTheExponential) {
  const Gaps gaps = gaps_of(Arrivals(20, Arrival::kPoisson, 1, 1));
  EXPECT_NEAR(gaps.mean, 0.05, 0.05 * 0.025);
  EXPECT_NEAR(gaps.variation, 1, 0.05);
}

TEST(Arrivals, BurstinessIsTheShapeOfTheGaps) {
  for (const double burstiness : {0.25, 4.0}) {
    const Gaps gaps = gaps_of(Arrivals(100, Arrival::kPoisson, burstiness, 1));
    const double variation = 1 / std::sqrt(burstiness);
    EXPECT_NEAR(gaps.mean, 0.01, 0.01 * 0.025 * variation) << burstiness;
    EXPECT_NEAR(gaps.variation, variation, 0.1 * variation) << burstiness;
  }
}

TEST(Arrivals, ConstantGapsAreConstant) {
  Arrivals arrivals(4, Arrival::kConstant, 1, 1);
  for (int i = 0; i < 100; ++i) EXPECT_DOUBLE_EQ(arrivals.next_s(), i * 0.25);
}

TEST(Arrivals, AnInfiniteRateIsAllAtOnce) {
  Arrivals arrivals(std::numeric_limits<double>::infinity(), Arrival::kPoisson, 1, 1);
  EXPECT_TRUE(arrivals.is_at_once());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(arrivals.next_s(), 0);
}

TEST(Arrivals, AreTheSameForTheSameSeed) {
  Arrivals one(5, Arrival::kPoisson, 0.5, 7);
  Arrivals same(5, Arrival::kPoisson, 0.5, 7);
  Arrivals other(5, Arrival::kPoisson, 0.5, 8);
  bool differs = false;
  for (int i = 0; i < 100; ++i) {
    const double next = one.next_s();
    EXPECT_EQ(next, same.next_s());
    differs |= next != other.next_s();
  }
  EXPECT_TRUE(differs);
}

TEST(Arrivals, NeedARate) {
  EXPECT_THROW(Arrivals(0, Arrival::kPoisson, 1, 1), std::logic_error);
  EXPECT_THROW(Arrivals(1, Arrival::kPoisson, 0, 1), std::logic_error);
}

}  // namespace
}  // namespace augur::serve_bench
