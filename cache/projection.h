// Reduces the input of a gate to a few dimensions, so that states can be compared cheaply.
//
// A projection is linear: out = (x - mean) * matrix. It is fitted to a sample (PCA: the
// directions in which the layer's states differ most) or random (directions that mean nothing but
// keep angles roughly, without a sample).
// Threading: immutable; project may be called from several threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/pca.h"
#include "cache/row_product.h"
#include "kernels/tensor.h"

namespace augur {

class Projection {
 public:
  static constexpr int kMinDims = 3;
  static constexpr int kMaxDims = 64;
  static constexpr int64_t kMaxHiddenSize = 65536;

  /// No projection; is_present() is false and nothing can be projected.
  Projection() = default;
  /// From the parts that matrix() and offset() give. Requires offset.size() == matrix.num_cols(),
  /// within the limits above.
  Projection(TiledMatrix matrix, std::vector<float> offset);

  /// The principal components of [num_samples, hidden_size]; requirements as of fit_pca.
  static Projection fit(const float* samples, int64_t num_samples, int64_t hidden_size, int dims);
  /// Signs drawn with equal odds, the same for the same seed everywhere.
  /// Source: Achlioptas 2003, "Database-friendly random projections", J. Comput. Syst. Sci. 66.
  static Projection random(int64_t hidden_size, int dims, uint64_t seed);

  /// Reduces each row of `x` [num_rows, hidden_size] f32 in host memory.
  ///   out  [num_rows, num_padded_dims()]; what lies past dims() is zero
  void project(const Tensor& x, float* out) const;

  bool is_present() const { return matrix_.num_cols() > 0; }
  int dims() const { return matrix_.num_cols(); }
  int num_padded_dims() const { return matrix_.num_padded_cols(); }
  int64_t hidden_size() const { return matrix_.depth(); }
  const TiledMatrix& matrix() const { return matrix_; }
  /// What is taken from x * matrix: the projected mean.
  std::span<const float> offset() const { return offset_; }

 private:
  TiledMatrix matrix_;         // [hidden_size, dims]
  std::vector<float> offset_;  // [dims]
};

}  // namespace augur
