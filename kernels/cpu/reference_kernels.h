// The float32 inner loops of the reference operations.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes.h"
#include "kernels/weights.h"

namespace augur::cpu {

/// Rows of activations that one call of panel_product takes.
inline constexpr int64_t kProductRows = 8;

/// The loops compiled for one instruction set. Every sum runs in one fixed order, whatever else
/// the call computes.
struct ReferenceKernels {
  /// The sum of a[i] * b[i], in 16 strands.
  float (*dot)(const float* a, const float* b, int64_t n);

  /// out[r][i] = the sum over c of x[r][c] * panel[c][i], c rising.
  ///   panel  [num_cols, kLanes], as load_panel made it
  ///   x      num_rows pointers to num_cols floats; 1 <= num_rows <= kProductRows
  ///   out    [num_rows, kLanes]
  void (*panel_product)(
      const float* panel, int64_t num_cols, const float* const* x, int64_t num_rows, float* out);

  /// scores[p] = scale * the sum over d of q[d] * keys[d * stride + p], for p < num_positions.
  void (*score_keys)(const float* q,
                     int64_t head_dim,
                     const float* keys,
                     int64_t stride,
                     int64_t num_positions,
                     float scale,
                     float* scores);

  /// out[d] += the sum over p of weights[p] * values[p * head_dim + d], p rising.
  void (*add_values)(const float* weights,
                     int64_t num_positions,
                     const float* values,
                     int64_t head_dim,
                     float* out);
};

/// Requires has_isa(isa).
const ReferenceKernels& reference_kernels(Isa isa = best_isa());

/// Floats that load_panel writes for a matrix of num_cols columns.
int64_t panel_floats(int64_t num_cols);

/// Converts rows [panel_idx * kLanes, + kLanes) of a packed matrix to float32, column by column:
/// panel[c * kLanes + r]. Rows past the last are zero. An int8 weight is multiplied by its scale,
/// rounded once.
void load_panel(const PackedMatrix& matrix, int64_t panel_idx, float* panel);

}  // namespace augur::cpu
