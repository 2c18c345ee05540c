#include "kernels/cpu/reference_kernels.h"

#include <string>

#include "kernels/cpu/tile_layout.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

static_assert(kLanes == kTileRows, "a panel is one row of tiles");

AUGUR_INLINE float dot_body(const float* a, const float* b, int64_t n) {
  FloatLanes sums = {}, left, right;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load_lanes(a + i, left);
    load_lanes(b + i, right);
    sums += left * right;
  }
  float result = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) result += sums[lane];
  for (; i < n; ++i) result += a[i] * b[i];
  return result;
}

template <int kRows>
AUGUR_INLINE void product_of_rows(const float* panel,
                                  int64_t num_cols,
                                  const float* const* x,
                                  float* out) {
  FloatLanes sums[kRows] = {};
  for (int64_t col = 0; col < num_cols; ++col) {
    FloatLanes weights;
    load_lanes(panel + col * kLanes, weights);
    for (int r = 0; r < kRows; ++r) sums[r] += weights * x[r][col];
  }
  for (int r = 0; r < kRows; ++r) store_lanes(sums[r], out + r * kLanes);
}

AUGUR_INLINE void panel_product_body(
    const float* panel, int64_t num_cols, const float* const* x, int64_t num_rows, float* out) {
  if (num_rows == kProductRows) {
    product_of_rows<kProductRows>(panel, num_cols, x, out);
    return;
  }
  for (int64_t r = 0; r < num_rows; ++r) {
    product_of_rows<1>(panel, num_cols, x + r, out + r * kLanes);
  }
}

AUGUR_INLINE void score_keys_body(const float* q,
                                  int64_t head_dim,
                                  const float* keys,
                                  int64_t stride,
                                  int64_t num_positions,
                                  float scale,
                                  float* scores) {
  int64_t p = 0;
  for (; p + kLanes <= num_positions; p += kLanes) {
    FloatLanes sums = {}, key;
    for (int64_t d = 0; d < head_dim; ++d) {
      load_lanes(keys + d * stride + p, key);
      sums += key * q[d];
    }
    store_lanes(sums * scale, scores + p);
  }
  for (; p < num_positions; ++p) {
    float sum = 0;
    for (int64_t d = 0; d < head_dim; ++d) sum += keys[d * stride + p] * q[d];
    scores[p] = sum * scale;
  }
}

AUGUR_INLINE void add_values_body(const float* weights,
                                  int64_t num_positions,
                                  const float* values,
                                  int64_t head_dim,
                                  float* out) {
  int64_t d = 0;
  for (; d + kLanes <= head_dim; d += kLanes) {
    FloatLanes sums, value;
    load_lanes(out + d, sums);
    for (int64_t p = 0; p < num_positions; ++p) {
      load_lanes(values + p * head_dim + d, value);
      sums += value * weights[p];
    }
    store_lanes(sums, out + d);
  }
  for (; d < head_dim; ++d) {
    for (int64_t p = 0; p < num_positions; ++p) out[d] += values[p * head_dim + d] * weights[p];
  }
}

AUGUR_DEFINE_FOR_EACH_ISA(float, dot, (const float* a, const float* b, int64_t n), (a, b, n))
AUGUR_DEFINE_FOR_EACH_ISA(
    void,
    panel_product,
    (const float* panel, int64_t num_cols, const float* const* x, int64_t num_rows, float* out),
    (panel, num_cols, x, num_rows, out))
AUGUR_DEFINE_FOR_EACH_ISA(void,
                          score_keys,
                          (const float* q,
                           int64_t head_dim,
                           const float* keys,
                           int64_t stride,
                           int64_t num_positions,
                           float scale,
                           float* scores),
                          (q, head_dim, keys, stride, num_positions, scale, scores))
AUGUR_DEFINE_FOR_EACH_ISA(void,
                          add_values,
                          (const float* weights,
                           int64_t num_positions,
                           const float* values,
                           int64_t head_dim,
                           float* out),
                          (weights, num_positions, values, head_dim, out))

constexpr ReferenceKernels kPortableKernels = {dot_portable, panel_product_portable,
                                               score_keys_portable, add_values_portable};
constexpr ReferenceKernels kAvx2Kernels = {dot_avx2, panel_product_avx2, score_keys_avx2,
                                           add_values_avx2};
constexpr ReferenceKernels kAvx512Kernels = {dot_avx512, panel_product_avx512, score_keys_avx512,
                                             add_values_avx512};

}  // namespace

const ReferenceKernels& reference_kernels(Isa isa) {
  AUGUR_REQUIRE(has_isa(isa), "this machine lacks " + std::string(isa_name(isa)));
  switch (isa) {
    case Isa::kPortable:
      return kPortableKernels;
    case Isa::kAvx2:
      return kAvx2Kernels;
    case Isa::kAvx512:
    case Isa::kAmx:
      return kAvx512Kernels;
  }
  return kPortableKernels;
}

namespace {

void load_int8_panel(const PackedMatrix& matrix, int64_t panel_idx, float* panel) {
  const int64_t num_cols = num_col_tiles(matrix.num_cols) * kTileCols;
  // A byte for each bf16.
  const int64_t first = tiled_pair_offset(matrix.num_cols, panel_idx * kLanes, 0) / 2;
  const auto* const from = reinterpret_cast<const int8_t*>(matrix.data) + first;
  for (int64_t col = 0; col < num_cols; ++col) {
    const int8_t* const values = from + col / 2 * 2 * kLanes + col % 2;
    for (int64_t r = 0; r < kLanes; ++r) {
      panel[col * kLanes + r] =
          static_cast<float>(values[2 * r]) * matrix.scales[panel_idx * kLanes + r];
    }
  }
}

}  // namespace

int64_t panel_floats(int64_t num_cols) {
  return num_col_tiles(num_cols) * kTileCols * kLanes;
}

void load_panel(const PackedMatrix& matrix, int64_t panel_idx, float* panel) {
  if (matrix.scales != nullptr) {
    load_int8_panel(matrix, panel_idx, panel);
    return;
  }
  const int64_t num_tiles = num_col_tiles(matrix.num_cols);
  for (int64_t col_tile = 0; col_tile < num_tiles; ++col_tile) {
    const int64_t tile_offset =
        tiled_pair_offset(matrix.num_cols, panel_idx * kLanes, col_tile * kTileCols);
    const auto* const from = reinterpret_cast<const Bf16*>(matrix.data + tile_offset);
    float* const to = panel + col_tile * kTileCols * kLanes;
    for (int64_t col = 0; col < kTileCols; ++col) {
      // The values of two columns alternate along the rows.
      const Bf16* const values = from + col / 2 * 2 * kLanes + col % 2;
      for (int64_t r = 0; r < kLanes; ++r) to[col * kLanes + r] = to_float(values[2 * r]);
    }
  }
}

}  // namespace augur::cpu
