#include "cache/pca.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "cache/row_product.h"
#include "tests/kernels/available_isas.h"

namespace augur {
namespace {

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return sum;
}

/// Orthonormal rows made from products of cosines: unlike what the fit starts from.
std::vector<float> cosine_basis(int count, int64_t length) {
  std::vector<float> rows;
  for (int i = 1; i <= count; ++i) {
    for (int64_t k = 0; k < length; ++k) {
      const double angle = M_PI * i * (static_cast<double>(k) + 0.5) / static_cast<double>(length);
      rows.push_back(
          static_cast<float>(std::sqrt(2.0 / static_cast<double>(length)) * std::cos(angle)));
    }
  }
  return rows;
}

TEST(PcaTest, FindsTheDirectionsOfALowRankSampleByFallingVariance) {
  constexpr int kRank = 5;
  constexpr int64_t kSamples = 400, kHidden = 130;
  const std::vector<float> basis = cosine_basis(kRank, kHidden);
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  std::vector<float> samples(kSamples * kHidden);
  for (int64_t n = 0; n < kSamples; ++n) {
    for (int64_t h = 0; h < kHidden; ++h) samples[n * kHidden + h] = 3.0f;  // a mean to subtract
    for (int r = 0; r < kRank; ++r) {
      const float share = normal(random) * static_cast<float>(10 >> r);  // 10, 5, 2, 1, 0
      for (int64_t h = 0; h < kHidden; ++h) {
        samples[n * kHidden + h] += share * basis[r * kHidden + h];
      }
    }
  }
  const Pca pca = fit_pca(samples.data(), kSamples, kHidden, /*dims=*/4);
  for (int d = 0; d < 4; ++d) {
    const float* component = &pca.components[d * kHidden];
    EXPECT_NEAR(dot(component, component, kHidden), 1, 1e-5);
    double within = 0;  // the share of the component that lies in the true subspace
    for (int r = 0; r < 4; ++r) {
      within += std::pow(dot(component, &basis[r * kHidden], kHidden), 2);
      if (r != d) {
        EXPECT_NEAR(dot(component, &pca.components[r * kHidden], kHidden), 0, 1e-5);
      }
    }
    EXPECT_NEAR(within, 1, 1e-5) << d;
    EXPECT_GT(std::abs(dot(component, &basis[d * kHidden], kHidden)), 0.98) << d;
    if (d > 0) {
      EXPECT_GE(pca.variances[d - 1], pca.variances[d]);
    }
    const double expected = std::pow(10 >> d, 2);
    EXPECT_NEAR(pca.variances[d], expected, 0.25 * expected) << "of 400 samples";
  }
  double captured = 0;
  for (const double variance : pca.variances) captured += variance;
  EXPECT_NEAR(captured / pca.total_variance, 1, 1e-5) << "there is nothing else in the sample";
  EXPECT_NEAR(pca.mean[7], 3, 0.5);
}

TEST(PcaTest, CapturesNearlyWhatTheExactComponentsDo) {
  constexpr int64_t kSamples = 100, kHidden = 40;
  constexpr int kDims = 8;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> samples(kSamples * kHidden);
  for (int64_t i = 0; i < kSamples * kHidden; ++i) {
    samples[i] = normal(random) / static_cast<float>(1 + i % kHidden);
  }
  const Pca pca = fit_pca(samples.data(), kSamples, kHidden, kDims);

  std::vector<double> covariance(kHidden * kHidden);
  for (int64_t n = 0; n < kSamples; ++n) {
    for (int64_t a = 0; a < kHidden; ++a) {
      for (int64_t b = 0; b < kHidden; ++b) {
        covariance[a * kHidden + b] += (double{samples[n * kHidden + a]} - pca.mean[a]) *
                                       (double{samples[n * kHidden + b]} - pca.mean[b]) /
                                       (kSamples - 1);
      }
    }
  }
  std::vector<double> values, vectors;
  symmetric_eigen(covariance, kHidden, values, vectors);
  double exact = 0, captured = 0;
  for (int d = 0; d < kDims; ++d) {
    exact += values[d];
    captured += pca.variances[d];
  }
  EXPECT_NEAR(captured / exact, 1, 1e-3);
}

TEST(PcaTest, LeavesDirectionsWithoutVarianceOrthonormal) {
  constexpr int64_t kSamples = 20, kHidden = 12;
  std::vector<float> samples(kSamples * kHidden, 1.0f);
  for (int64_t n = 0; n < kSamples; ++n) samples[n * kHidden + 3] = static_cast<float>(n);
  const Pca pca = fit_pca(samples.data(), kSamples, kHidden, 6);
  EXPECT_NEAR(std::abs(pca.components[3]), 1, 1e-5);
  for (int a = 0; a < 6; ++a) {
    for (int b = 0; b < 6; ++b) {
      EXPECT_NEAR(dot(&pca.components[a * kHidden], &pca.components[b * kHidden], kHidden), a == b,
                  1e-4);
    }
    if (a > 0) {
      EXPECT_NEAR(pca.variances[a], 0, 1e-6);
    }
  }
}

TEST(PcaTest, RefusesMoreComponentsThanTheSampleHas) {
  const std::vector<float> samples(40);
  EXPECT_THROW((void)fit_pca(samples.data(), 4, 10, 4), std::logic_error);
  EXPECT_THROW((void)fit_pca(samples.data(), 10, 4, 5), std::logic_error);
}

TEST(SymmetricEigenTest, RebuildsTheMatrix) {
  std::mt19937 random(6);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (const int n : {1, 2, 7, 40}) {
    std::vector<double> matrix(n * n);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j <= i; ++j) matrix[i * n + j] = matrix[j * n + i] = uniform(random);
    }
    std::vector<double> values, vectors;
    symmetric_eigen(matrix, n, values, vectors);
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) {
        double sum = 0;
        for (int k = 0; k < n; ++k) sum += values[k] * vectors[k * n + i] * vectors[k * n + j];
        EXPECT_NEAR(sum, matrix[i * n + j], 1e-10);
      }
      if (i > 0) {
        EXPECT_GE(values[i - 1], values[i]);
      }
    }
  }
}

class RowProductTest : public ::testing::TestWithParam<cpu::Isa> {};
INSTANTIATE_TEST_SUITE_P(Isas,
                         RowProductTest,
                         ::testing::ValuesIn(cpu::available_isas()),
                         cpu::isa_test_name);

TEST_P(RowProductTest, MultipliesAndKeepsRowsIndependent) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (const int64_t depth : {0, 1, 2, 33, 100}) {
    for (const int num_cols : {1, 16, 37}) {
      for (const int64_t num_rows : {0, 1, 4, 7}) {
        TiledMatrix matrix(depth, num_cols);
        for (int64_t i = 0; i < depth; ++i) {
          for (int j = 0; j < num_cols; ++j) matrix.at(i, j) = uniform(random);
        }
        const int64_t x_stride = depth + 3;
        std::vector<float> x(num_rows * x_stride);
        for (float& value : x) value = uniform(random);
        const int64_t stride = matrix.num_padded_cols();
        std::vector<float> out(num_rows * stride, std::numeric_limits<float>::quiet_NaN());
        row_product(x.data(), num_rows, x_stride, matrix, out.data(), GetParam());
        for (int64_t row = 0; row < num_rows; ++row) {
          for (int64_t col = 0; col < stride; ++col) {
            double sum = 0;
            for (int64_t i = 0; i < depth && col < num_cols; ++i) {
              sum += double{x[row * x_stride + i]} * matrix.at(i, static_cast<int>(col));
            }
            // Rounding of at most 100 products below 1 each.
            EXPECT_NEAR(out[row * stride + col], sum, 2e-5);
          }
          std::vector<float> alone(stride);
          row_product(&x[row * x_stride], 1, x_stride, matrix, alone.data(), GetParam());
          EXPECT_TRUE(std::equal(alone.begin(), alone.end(), &out[row * stride]));
        }
      }
    }
  }
}

}  // namespace
}  // namespace augur
