// Products of many rows with one narrow matrix: what a projection and its fitting are made of.
//
// The matrix is stored in tiles of 16 columns, so that sums stay in vector registers and no sum
// crosses lanes. Written once; compiled for plain x86-64, AVX2 and AVX-512 and chosen at run time.
// Threading: free of state.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/isa.h"

namespace augur {

/// A matrix [depth, num_cols] in tiles [num_cols / 16 rounded up][depth][16]; columns that fill up
/// the last tile are zero.
class TiledMatrix {
 public:
  static constexpr int kTileCols = 16;

  TiledMatrix() = default;
  TiledMatrix(int64_t depth, int num_cols);

  int64_t depth() const { return depth_; }
  int num_cols() const { return num_cols_; }
  int num_padded_cols() const { return num_tiles() * kTileCols; }
  int num_tiles() const { return (num_cols_ + kTileCols - 1) / kTileCols; }

  float& at(int64_t row, int col) { return values_[position(row, col)]; }
  float at(int64_t row, int col) const { return values_[position(row, col)]; }
  /// [depth, 16].
  const float* tile(int tile_idx) const { return values_.data() + tile_idx * depth_ * kTileCols; }

 private:
  int64_t position(int64_t row, int col) const {
    return (col / kTileCols * depth_ + row) * kTileCols + col % kTileCols;
  }

  int64_t depth_ = 0;
  int num_cols_ = 0;
  std::vector<float> values_;
};

/// out = x * matrix in float32; a row's result does not depend on the other rows. Instruction sets
/// differ in the last bits. Requires that the machine has `isa`.
///   x    [num_rows, matrix.depth()]              rows `x_stride` elements apart
///   out  [num_rows, matrix.num_padded_cols()]    dense
void row_product(const float* x,
                 int64_t num_rows,
                 int64_t x_stride,
                 const TiledMatrix& matrix,
                 float* out,
                 cpu::Isa isa = cpu::best_isa());

}  // namespace augur
