#include "kernels/cpu/row_select.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace augur::cpu {
namespace {

// Runs this long are passed over when their largest value is not good enough.
constexpr int64_t kRun = 256;

}  // namespace

void select_top(
    const RowMath& math, const float* logits, int64_t n, int64_t k, Candidate* candidates) {
  if (k == 0) return;
  const int64_t capacity = select_capacity(n, k);
  int64_t count = 0;
  // Once k are found, a later one is better only by a larger logit: its id is higher than theirs.
  bool has_bound = false;
  float bound = 0;
  const auto cut_back = [&] {
    std::nth_element(candidates, candidates + (k - 1), candidates + count, is_better);
    count = k;
    has_bound = true;
    bound = candidates[k - 1].logit;
  };
  for (int64_t start = 0; start < n; start += kRun) {
    const int64_t end = std::min(start + kRun, n);
    if (has_bound && math.max_value(logits + start, end - start) <= bound) continue;
    for (int64_t i = start; i < end; ++i) {
      const float logit =
          std::isnan(logits[i]) ? -std::numeric_limits<float>::infinity() : logits[i];
      if (has_bound && logit <= bound) continue;
      candidates[count++] = {logit, static_cast<int32_t>(i)};
      if (count == capacity && count > k) cut_back();
    }
  }
  if (count > k) cut_back();
}

}  // namespace augur::cpu
