#include "prefetch/rank_experts.h"

#include <algorithm>

namespace augur {

void rank_experts(std::span<const float> scores,
                  std::span<int32_t> ranked,
                  std::vector<int32_t>& order) {
  order.clear();
  order.reserve(scores.size());
  for (size_t e = 0; e < scores.size(); ++e) {
    if (scores[e] > 0) order.push_back(static_cast<int32_t>(e));
  }
  const auto is_better = [&](int32_t a, int32_t b) {
    return scores[a] != scores[b] ? scores[a] > scores[b] : a < b;
  };
  const size_t count = std::min(ranked.size(), order.size());
  const auto end = order.begin() + static_cast<int64_t>(count);
  if (count < order.size()) std::nth_element(order.begin(), end, order.end(), is_better);
  std::sort(order.begin(), end, is_better);
  std::copy(order.begin(), end, ranked.begin());
  std::fill(ranked.begin() + static_cast<int64_t>(count), ranked.end(), -1);
}

}  // namespace augur
