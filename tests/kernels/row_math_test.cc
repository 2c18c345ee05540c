#include "kernels/cpu/row_math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/row_select.h"

namespace augur::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class RowMathTest : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!has_isa(GetParam())) GTEST_SKIP() << "this machine lacks " << isa_name(GetParam());
  }
  const RowMath& math() const { return row_math(GetParam()); }
  float exp_of(float x) const {
    float result = -1;
    math().exp_scaled(&x, 1, 0, 1, &result);
    return result;
  }
};

TEST_P(RowMathTest, ExpStaysWithinItsErrorBound) {
  // Over the whole range, through a run of neighbouring floats, and towards zero.
  std::vector<float> x;
  for (double t = -87.3; t <= 0; t += 87.3 / 1000003) x.push_back(static_cast<float>(t));
  for (float t = -0.5f; t < -0.4999f; t = std::nextafter(t, 0.0f)) x.push_back(t);
  for (double t = 1; t > 1e-38; t *= 0.9997) x.push_back(static_cast<float>(-t));
  std::vector<float> result(x.size());
  math().exp_scaled(x.data(), static_cast<int64_t>(x.size()), 0, 1, result.data());
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(double{x[i]});
    worst = std::max(worst, std::abs(result[i] - expected) / expected);
  }
  EXPECT_LE(worst, 1.2e-7);
  RecordProperty("worst_relative_error_e9", static_cast<int>(worst * 1e9));
}

TEST_P(RowMathTest, ExpIsExactAtTheEnds) {
  EXPECT_EQ(exp_of(0.0f), 1.0f);
  EXPECT_EQ(exp_of(-0.0f), 1.0f);
  EXPECT_EQ(exp_of(-87.5f), 0.0f);
  EXPECT_EQ(exp_of(-1e30f), 0.0f);
  EXPECT_EQ(exp_of(-kInfinity), 0.0f);
  EXPECT_EQ(exp_of(kNan), 0.0f);
}

TEST_P(RowMathTest, ExpNeverFallsAsTheArgumentRises) {
  std::vector<float> x;
  for (float t = -3.0f; t < -2.99f; t = std::nextafter(t, 0.0f)) x.push_back(t);
  std::vector<float> result(x.size());
  math().exp_scaled(x.data(), static_cast<int64_t>(x.size()), 0, 1, result.data());
  EXPECT_TRUE(std::is_sorted(result.begin(), result.end()));
}

TEST_P(RowMathTest, TreatsEveryLengthAlike) {
  std::mt19937 random(1);
  std::vector<float> x(1100);
  for (float& value : x) value = -static_cast<float>(random() % 10000) / 1000;
  for (const int64_t n : {0, 1, 2, 15, 16, 17, 31, 32, 33, 511, 512, 513, 1024, 1100}) {
    const auto end = x.begin() + n;
    EXPECT_EQ(math().max_value(x.data(), n),
              n == 0 ? -kInfinity : *std::max_element(x.begin(), end));
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::exp(double{x[i]} - 1.5);
    EXPECT_NEAR(math().sum_exp(x.data(), n, 1.5f), sum, 1e-6 * sum) << n;
    std::vector<float> out(n + 1, 7.0f);
    math().exp_scaled(x.data(), n, 1.0f, 0.5f, out.data());
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_NEAR(out[i], std::exp((x[i] - 1.0) * 0.5), 1e-6) << n << ", " << i;
    }
    EXPECT_EQ(out[n], 7.0f) << "wrote past the end";
  }
}

TEST_P(RowMathTest, CountsNanAsMinusInfinity) {
  for (const size_t place : {0, 5, 16, 35}) {
    std::vector<float> x(36, -2.0f);
    x[place] = kNan;
    EXPECT_EQ(math().max_value(x.data(), 36), -2.0f);
    EXPECT_NEAR(math().sum_exp(x.data(), 36, -2.0f), 35.0, 1e-5);
  }
  const std::vector<float> all(20, kNan);
  EXPECT_EQ(math().max_value(all.data(), 20), -kInfinity);
  EXPECT_EQ(math().sum_exp(all.data(), 20, -kInfinity), 0.0);
}

TEST_P(RowMathTest, SelectTopAgreesWithASort) {
  std::mt19937 random(2);
  for (const int64_t n : {1, 2, 7, 255, 256, 257, 3000}) {
    for (const int num_values : {1, 3, 1000000}) {  // many ties, some, hardly any
      std::vector<float> logits(n);
      for (float& logit : logits) logit = static_cast<float>(random() % num_values);
      if (n > 2) logits[n / 2] = kNan;
      if (n > 100) std::sort(logits.begin() + 60, logits.end());  // the costly order, too
      std::vector<Candidate> sorted(n);
      for (int32_t i = 0; i < n; ++i) {
        sorted[i] = {std::isnan(logits[i]) ? -kInfinity : logits[i], i};
      }
      std::sort(sorted.begin(), sorted.end(), is_better);
      for (const int64_t k : {int64_t{0}, int64_t{1}, n / 3, n / 2, n - 1, n}) {
        std::vector<Candidate> best(select_capacity(n, k));
        select_top(math(), logits.data(), n, k, best.data());
        best.resize(k);
        std::sort(best.begin(), best.end(), is_better);
        for (int64_t i = 0; i < k; ++i) ASSERT_EQ(best[i].id, sorted[i].id) << n << ", " << k;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         RowMathTest,
                         ::testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

}  // namespace
}  // namespace augur::cpu
