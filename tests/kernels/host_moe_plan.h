// A MoE plan made on the host, for tests and benches of the kernels that read one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/moe_plan.h"

namespace augur::cuda {

struct HostMoePlan {
  std::vector<int32_t> sorted;
  std::vector<MoeTile> tiles;
};

/// What plan_moe promises (moe_plan.h), by sorting.
inline HostMoePlan host_moe_plan(std::span<const int32_t> experts,
                                 std::span<const int32_t> slot_of_expert,
                                 int tile_rows) {
  HostMoePlan plan;
  for (int32_t expert = 0; expert < static_cast<int32_t>(slot_of_expert.size()); ++expert) {
    const auto begin = static_cast<int32_t>(plan.sorted.size());
    for (size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] == expert) plan.sorted.push_back(static_cast<int32_t>(i));
    }
    const auto end = static_cast<int32_t>(plan.sorted.size());
    for (int32_t first = begin; first < end; first += tile_rows) {
      plan.tiles.push_back(
          {expert, first, std::min(tile_rows, end - first), slot_of_expert[expert]});
    }
  }
  return plan;
}

}  // namespace augur::cuda
