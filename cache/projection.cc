#include "cache/projection.h"

#include <cmath>
#include <random>
#include <string>
#include <utility>

#include "kernels/require.h"

namespace augur {

Projection::Projection(TiledMatrix matrix, std::vector<float> offset)
    : matrix_(std::move(matrix)), offset_(std::move(offset)) {
  AUGUR_REQUIRE(dims() >= kMinDims && dims() <= kMaxDims && hidden_size() >= 1 &&
                    hidden_size() <= kMaxHiddenSize && std::ssize(offset_) == dims(),
                std::to_string(hidden_size()) + " x " + std::to_string(dims()) + ", offset of " +
                    std::to_string(offset_.size()));
}

Projection Projection::fit(const float* samples,
                           int64_t num_samples,
                           int64_t hidden_size,
                           int dims) {
  const Pca pca = fit_pca(samples, num_samples, hidden_size, dims);
  TiledMatrix matrix(hidden_size, dims);
  std::vector<float> offset(dims);
  for (int d = 0; d < dims; ++d) {
    double sum = 0;
    for (int64_t h = 0; h < hidden_size; ++h) {
      matrix.at(h, d) = pca.components[d * hidden_size + h];
      sum += double{matrix.at(h, d)} * pca.mean[h];
    }
    offset[d] = static_cast<float>(sum);
  }
  return {std::move(matrix), std::move(offset)};
}

Projection Projection::random(int64_t hidden_size, int dims, uint64_t seed) {
  TiledMatrix matrix(hidden_size, dims);
  std::mt19937_64 random(seed);
  const float unit = 1 / std::sqrt(static_cast<float>(hidden_size));  // columns of length 1
  for (int64_t h = 0; h < hidden_size; ++h) {
    const uint64_t bits = random();  // one for each of at most 64 columns
    for (int d = 0; d < dims; ++d) matrix.at(h, d) = ((bits >> (d % 64)) & 1) != 0 ? unit : -unit;
  }
  return {std::move(matrix), std::vector<float>(dims)};
}

void Projection::project(const Tensor& x, float* out) const {
  AUGUR_REQUIRE(is_present() && x.dtype == DType::kF32 && x.num_cols == hidden_size(),
                "a projection of " + std::to_string(hidden_size()) + " to " +
                    std::to_string(dims()) + " is given rows of " + std::to_string(x.num_cols));
  row_product(static_cast<const float*>(x.data), x.num_rows, x.row_stride, matrix_, out);
  for (int64_t row = 0; row < x.num_rows; ++row) {
    for (int d = 0; d < dims(); ++d) out[row * num_padded_dims() + d] -= offset_[d];
  }
}

}  // namespace augur
