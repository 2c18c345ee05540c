// Which rows go to which expert: made on the device from the router's choices, read by the MoE
// kernels there; the host never sees it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace augur::cuda {

/// Up to tile_rows rows of one expert.
struct MoeTile {
  int32_t expert = 0;
  int32_t first = 0;     // into MoePlan::sorted
  int32_t num_rows = 0;  // 1 to tile_rows
  int32_t slot = 0;      // slot_of_expert[expert]
};

/// An assignment is one choice of one token, numbered token * top_k + choice. All in device memory.
///   sorted      [max_assignments]  assignments by expert, and by number within one
///   tiles       [max_tiles]        by expert; tiles of an expert are consecutive, all full but the
///                                  last
///   num_tiles   [1]
///   scratch     plan_moe's own
/// num_tiles is at most max_tiles(num_assignments, num_experts, tile_rows).
struct MoePlan {
  int32_t* sorted = nullptr;
  MoeTile* tiles = nullptr;
  int32_t* num_tiles = nullptr;
  int tile_rows = 0;
  int32_t* scratch = nullptr;
};

/// Tiles that any routing can need: one partly filled per expert that has rows, the rest full.
constexpr int64_t max_tiles(int64_t num_assignments, int64_t num_experts, int64_t tile_rows) {
  const int64_t num_partial = num_assignments < num_experts ? num_assignments : num_experts;
  return num_partial + num_assignments / tile_rows;
}

/// Bytes of a plan's arrays, and placing them in `memory` (256-byte aligned).
int64_t moe_plan_bytes(int64_t num_assignments, int64_t num_experts, int64_t tile_rows);
MoePlan place_moe_plan(void* memory,
                       int64_t num_assignments,
                       int64_t num_experts,
                       int64_t tile_rows);

/// Sorts the assignments by expert and cuts them into tiles of plan.tile_rows rows.
///   experts         [num_assignments]  i32: -1 is left out
///   slot_of_expert  [num_experts]      i32
///   plan            out
/// Deterministic: the same choices give the same plan. Requires num_experts <= 1024.
/// Asynchronous on `stream`. Small: reads 4 bytes per assignment a few times, writes 4.
struct MoePlanArgs {
  const int32_t* experts = nullptr;
  int64_t num_assignments = 0;
  const int32_t* slot_of_expert = nullptr;
  int num_experts = 0;
  MoePlan plan;
};
void plan_moe(const MoePlanArgs& args, cudaStream_t stream);

}  // namespace augur::cuda
