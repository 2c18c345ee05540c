// Passes over one row of logits or scores: the largest value and exponentials.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace augur::cpu {

/// The passes compiled for one instruction set. Results depend on the row alone.
struct RowMath {
  /// The largest of x[0, n). NaN counts as -infinity; so does an empty row.
  float (*max_value)(const float* x, int64_t n);

  /// The sum of exp(x[i] - shift), blocks of 512 in float32, their sums in double.
  double (*sum_exp)(const float* x, int64_t n, float shift);

  /// out[i] = exp((x[i] - shift) * scale). out may be x.
  void (*exp_scaled)(const float* x, int64_t n, float shift, float scale, float* out);

  // Of the exponentials: the argument must be <= 0 or NaN. The relative error is at most 1.2e-7
  // down to -87.3; smaller arguments and NaN give 0. exp(0) is exactly 1.
};

/// Requires has_isa(isa).
const RowMath& row_math(Isa isa = best_isa());

}  // namespace augur::cpu
