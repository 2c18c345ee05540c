// The best few of one row of logits, without sorting the row.
#pragma once

#include <cstdint>

#include "kernels/cpu/row_math.h"

namespace augur::cpu {

struct Candidate {
  float logit = 0;
  int32_t id = 0;
};

/// The order of every selection: by falling logit, ties to the lower id.
inline bool is_better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

/// Candidates that select_top may write.
constexpr int64_t select_capacity(int64_t n, int64_t k) {
  return k < n - k ? 2 * k : n;
}

/// Leaves the k best of logits[0, n) in `candidates`, in no order; NaN counts as -infinity.
/// O(n) whatever k: candidates are gathered up to twice k, then cut back to k.
/// Requires 0 <= k <= n, room for select_capacity(n, k).
void select_top(
    const RowMath& math, const float* logits, int64_t n, int64_t k, Candidate* candidates);

}  // namespace augur::cpu
