// From a score for every expert to a ranked list of the best.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace augur {

/// Writes the experts with the largest positive scores to `ranked`, best first, ties to the lower
/// index, and -1 behind the last. `order` is scratch; it grows once to the number of experts.
void rank_experts(std::span<const float> scores,
                  std::span<int32_t> ranked,
                  std::vector<int32_t>& order);

}  // namespace augur
