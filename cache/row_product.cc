#include "cache/row_product.h"

#include <cstring>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

constexpr int kTile = TiledMatrix::kTileCols;
typedef float Lanes __attribute__((vector_size(kTile * sizeof(float))));

struct Product {
  const float* x;
  int64_t num_rows;
  int64_t x_stride;
  const TiledMatrix& matrix;
  float* out;
};

// kRows rows times one tile. Two sums a row, over even and odd depth: with four rows that makes
// eight independent chains, what two multiply-add units of four cycles need. One row alone is
// summed in the same order, so that its result does not depend on its neighbours.
template <int kRows>
[[gnu::always_inline]] inline void tile_product(const Product& p, int64_t first_row, int tile_idx) {
  const float* x = p.x + first_row * p.x_stride;
  const float* tile = p.matrix.tile(tile_idx);
  const int64_t depth = p.matrix.depth();
  Lanes sums[kRows][2] = {};
  int64_t i = 0;
  for (; i + 2 <= depth; i += 2) {
    for (int s = 0; s < 2; ++s) {
      Lanes weights;
      std::memcpy(&weights, tile + (i + s) * kTile, sizeof(weights));
      for (int r = 0; r < kRows; ++r) sums[r][s] += x[r * p.x_stride + i + s] * weights;
    }
  }
  if (i < depth) {
    Lanes weights;
    std::memcpy(&weights, tile + i * kTile, sizeof(weights));
    for (int r = 0; r < kRows; ++r) sums[r][0] += x[r * p.x_stride + i] * weights;
  }
  const int64_t out_stride = p.matrix.num_padded_cols();
  for (int r = 0; r < kRows; ++r) {
    const Lanes sum = sums[r][0] + sums[r][1];
    std::memcpy(p.out + (first_row + r) * out_stride + tile_idx * kTile, &sum, sizeof(sum));
  }
}

[[gnu::always_inline]] inline void product(const Product& p) {
  for (int tile_idx = 0; tile_idx < p.matrix.num_tiles(); ++tile_idx) {
    int64_t row = 0;
    for (; row + 4 <= p.num_rows; row += 4) tile_product<4>(p, row, tile_idx);
    for (; row < p.num_rows; ++row) tile_product<1>(p, row, tile_idx);
  }
}

void product_portable(const Product& p) {
  product(p);
}
__attribute__((target("avx2,fma"))) void product_avx2(const Product& p) {
  product(p);
}
__attribute__((target("avx512f"))) void product_avx512(const Product& p) {
  product(p);
}

}  // namespace

TiledMatrix::TiledMatrix(int64_t depth, int num_cols) : depth_(depth), num_cols_(num_cols) {
  AUGUR_REQUIRE(depth >= 0 && num_cols >= 0,
                std::to_string(depth) + " x " + std::to_string(num_cols));
  values_.resize(static_cast<size_t>(depth) * num_padded_cols());
}

void row_product(const float* x,
                 int64_t num_rows,
                 int64_t x_stride,
                 const TiledMatrix& matrix,
                 float* out,
                 cpu::Isa isa) {
  const Product p{x, num_rows, x_stride, matrix, out};
  if (isa >= cpu::Isa::kAvx512) return product_avx512(p);
  if (isa >= cpu::Isa::kAvx2) return product_avx2(p);
  product_portable(p);
}

}  // namespace augur
