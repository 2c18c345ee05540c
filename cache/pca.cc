#include "cache/pca.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>

#include "cache/row_product.h"
#include "kernels/require.h"

namespace augur {
namespace {

constexpr int kSpareDirections = 8;  // five to ten, says the source
constexpr int kMaxIterations = 16;
constexpr double kEnough = 1e-5;  // growth of the captured variance that ends the iteration

// Sums in eight lanes: as exact as needed, and the compiler need not reorder anything.
double dot(const float* a, const float* b, int64_t n) {
  double lanes[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int lane = 0; lane < 8; ++lane) lanes[lane] += double{a[i + lane]} * b[i + lane];
  }
  for (; i < n; ++i) lanes[0] += double{a[i]} * b[i];
  return std::accumulate(lanes, lanes + 8, 0.0);
}

/// Vectors [count, length], each contiguous.
struct Vectors {
  Vectors(int count, int64_t length)
      : count(count), length(length), values(static_cast<size_t>(count) * length) {}
  float* row(int i) { return values.data() + i * length; }
  const float* row(int i) const { return values.data() + i * length; }

  int count;
  int64_t length;
  std::vector<float> values;
};

void fill_with_signs(float* row, int64_t length, std::mt19937_64& random) {
  for (int64_t i = 0; i < length; ++i) row[i] = (random() >> 63) != 0 ? 1.0f : -1.0f;
}

// Gram-Schmidt, each vector made orthogonal to those before it until that takes little away. A
// vector that lies in their span is replaced: the sample has no further direction to offer.
void make_orthonormal(Vectors& vectors, std::mt19937_64& random) {
  for (int i = 0; i < vectors.count; ++i) {
    float* row = vectors.row(i);
    double norm = std::sqrt(dot(row, row, vectors.length));
    double norm_before = norm;
    do {
      if (norm <= 1e-6 * norm_before || norm < 1e-30) {
        fill_with_signs(row, vectors.length, random);
        norm = std::sqrt(static_cast<double>(vectors.length));
      }
      norm_before = norm;
      for (int j = 0; j < i; ++j) {
        const float* other = vectors.row(j);
        const auto share = static_cast<float>(dot(row, other, vectors.length));
        for (int64_t k = 0; k < vectors.length; ++k) row[k] -= share * other[k];
      }
      norm = std::sqrt(dot(row, row, vectors.length));
    } while (norm < 0.7 * norm_before);
    const auto scale = static_cast<float>(1 / norm);
    for (int64_t k = 0; k < vectors.length; ++k) row[k] *= scale;
  }
}

TiledMatrix as_columns(const Vectors& vectors) {
  TiledMatrix matrix(vectors.length, vectors.count);
  for (int i = 0; i < vectors.count; ++i) {
    for (int64_t k = 0; k < vectors.length; ++k) matrix.at(k, i) = vectors.row(i)[k];
  }
  return matrix;
}

/// The result of a row_product with a matrix of `count` columns, its columns as vectors.
Vectors columns_of(const std::vector<float>& product, int count, int64_t length) {
  const int64_t stride = static_cast<int64_t>(product.size()) / length;
  Vectors vectors(count, length);
  for (int64_t k = 0; k < length; ++k) {
    for (int i = 0; i < count; ++i) vectors.row(i)[k] = product[k * stride + i];
  }
  return vectors;
}

/// `rows` [num_rows, depth] times the vectors as columns: again vectors, of length num_rows.
Vectors multiply(const std::vector<float>& rows, int64_t num_rows, const Vectors& vectors) {
  const TiledMatrix matrix = as_columns(vectors);
  std::vector<float> product(static_cast<size_t>(num_rows) * matrix.num_padded_cols());
  row_product(rows.data(), num_rows, vectors.length, matrix, product.data());
  return columns_of(product, vectors.count, num_rows);
}

double squared_norm(const Vectors& vectors) {
  double sum = 0;
  for (int i = 0; i < vectors.count; ++i) {
    sum += dot(vectors.row(i), vectors.row(i), vectors.length);
  }
  return sum;
}

std::vector<float> centred(const float* samples,
                           int64_t num_samples,
                           int64_t hidden_size,
                           std::vector<float>& mean) {
  std::vector<double> sums(hidden_size);
  for (int64_t n = 0; n < num_samples; ++n) {
    for (int64_t h = 0; h < hidden_size; ++h) sums[h] += samples[n * hidden_size + h];
  }
  mean.resize(hidden_size);
  for (int64_t h = 0; h < hidden_size; ++h) {
    mean[h] = static_cast<float>(sums[h] / static_cast<double>(num_samples));
  }
  std::vector<float> rows(samples, samples + num_samples * hidden_size);
  for (int64_t n = 0; n < num_samples; ++n) {
    for (int64_t h = 0; h < hidden_size; ++h) rows[n * hidden_size + h] -= mean[h];
  }
  return rows;
}

std::vector<float> transposed(const std::vector<float>& rows, int64_t num_rows, int64_t num_cols) {
  constexpr int64_t kBlock = 16;  // a cache line of either side
  std::vector<float> out(rows.size());
  for (int64_t first = 0; first < num_rows; first += kBlock) {
    for (int64_t c = 0; c < num_cols; ++c) {
      for (int64_t r = first; r < std::min(first + kBlock, num_rows); ++r) {
        out[c * num_rows + r] = rows[r * num_cols + c];
      }
    }
  }
  return out;
}

/// Turns the basis so that its directions are the principal ones: the Rayleigh-Ritz step.
void take_components(const Vectors& basis, const Vectors& scores, int dims, Pca& pca) {
  const int n = basis.count;
  const double scale = 1.0 / static_cast<double>(scores.length - 1);
  std::vector<double> covariance(static_cast<size_t>(n) * n), values, turns;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) {
      const double value = scale * dot(scores.row(i), scores.row(j), scores.length);
      covariance[i * n + j] = covariance[j * n + i] = value;
    }
  }
  symmetric_eigen(std::move(covariance), n, values, turns);
  pca.variances.assign(values.begin(), values.begin() + dims);
  pca.components.assign(static_cast<size_t>(dims) * basis.length, 0.0f);
  for (int d = 0; d < dims; ++d) {
    float* component = pca.components.data() + d * basis.length;
    for (int i = 0; i < n; ++i) {
      const auto share = static_cast<float>(turns[d * n + i]);
      for (int64_t k = 0; k < basis.length; ++k) component[k] += share * basis.row(i)[k];
    }
  }
}

/// One Jacobi rotation of rows and columns p and q, which makes matrix[p, q] zero.
void rotate(std::vector<double>& matrix, std::vector<double>& vectors, int n, int p, int q) {
  const double theta = (matrix[q * n + q] - matrix[p * n + p]) / (2 * matrix[p * n + q]);
  const double tangent =
      std::copysign(1.0, theta) / (std::abs(theta) + std::sqrt(theta * theta + 1));
  const double c = 1 / std::sqrt(tangent * tangent + 1);
  const double s = tangent * c;
  for (int k = 0; k < n; ++k) {
    const double a = matrix[k * n + p], b = matrix[k * n + q];
    matrix[k * n + p] = c * a - s * b;
    matrix[k * n + q] = s * a + c * b;
  }
  for (int k = 0; k < n; ++k) {
    const double a = matrix[p * n + k], b = matrix[q * n + k];
    matrix[p * n + k] = c * a - s * b;
    matrix[q * n + k] = s * a + c * b;
    const double v = vectors[p * n + k], w = vectors[q * n + k];
    vectors[p * n + k] = c * v - s * w;
    vectors[q * n + k] = s * v + c * w;
  }
}

}  // namespace

void symmetric_eigen(std::vector<double> matrix,
                     int n,
                     std::vector<double>& values,
                     std::vector<double>& vectors) {
  constexpr int kMaxSweeps = 30;  // convergence is quadratic: six to ten are usual
  std::vector<double> turns(static_cast<size_t>(n) * n);
  for (int i = 0; i < n; ++i) turns[i * n + i] = 1;
  const double scale =
      std::sqrt(std::inner_product(matrix.begin(), matrix.end(), matrix.begin(), 0.0));
  bool is_diagonal = false;
  for (int sweep = 0; sweep < kMaxSweeps && !is_diagonal; ++sweep) {
    is_diagonal = true;
    for (int p = 0; p < n; ++p) {
      for (int q = p + 1; q < n; ++q) {
        if (std::abs(matrix[p * n + q]) <= 1e-13 * scale) continue;
        rotate(matrix, turns, n, p, q);
        is_diagonal = false;
      }
    }
  }
  std::vector<int> order(n);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return matrix[a * n + a] > matrix[b * n + b]; });
  values.resize(n);
  vectors.resize(turns.size());
  for (int i = 0; i < n; ++i) {
    values[i] = matrix[order[i] * n + order[i]];
    std::copy_n(&turns[order[i] * n], n, &vectors[i * n]);
  }
}

Pca fit_pca(const float* samples, int64_t num_samples, int64_t hidden_size, int dims) {
  AUGUR_REQUIRE(dims >= 1 && dims <= hidden_size && dims < num_samples,
                std::to_string(dims) + " components of " + std::to_string(num_samples) +
                    " vectors of " + std::to_string(hidden_size));
  Pca pca;
  const std::vector<float> rows = centred(samples, num_samples, hidden_size, pca.mean);
  const std::vector<float> columns = transposed(rows, num_samples, hidden_size);
  const double scale = 1.0 / static_cast<double>(num_samples - 1);
  pca.total_variance = scale * dot(rows.data(), rows.data(), static_cast<int64_t>(rows.size()));

  std::mt19937_64 random(0x9e3779b97f4a7c15u);  // any fixed seed: the result converges
  const int64_t most = std::min(hidden_size, num_samples - 1);
  Vectors basis(static_cast<int>(std::min<int64_t>(dims + kSpareDirections, most)), hidden_size);
  for (int i = 0; i < basis.count; ++i) fill_with_signs(basis.row(i), hidden_size, random);
  double captured = 0;
  while (true) {
    make_orthonormal(basis, random);
    const Vectors scores = multiply(rows, num_samples, basis);
    const double captured_before = captured;
    captured = scale * squared_norm(scores);
    ++pca.num_iterations;
    if (pca.num_iterations == kMaxIterations || captured <= captured_before * (1 + kEnough)) {
      take_components(basis, scores, dims, pca);
      return pca;
    }
    basis = multiply(columns, hidden_size, scores);
  }
}

}  // namespace augur
