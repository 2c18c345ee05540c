// A gated MLP over planned rows as the device sees it: made on the host from the arguments of
// moe_prefill.h, passed to kernels by value.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <string>

#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/moe_prefill.h"
#include "kernels/require.h"

namespace augur::cuda {

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// With plan.tiles == nullptr the rows are one expert's, in their own order.
struct GatedMlp {
  const __nv_bfloat16* x = nullptr;
  int64_t x_stride = 0;
  int hidden = 0;
  int intermediate = 0;
  const std::byte* gate = nullptr;  // of slot 0
  const std::byte* up = nullptr;
  const std::byte* down = nullptr;
  int64_t slot_bytes = 0;
  MoePlan plan;
  int64_t num_assignments = 0;
  int num_experts = 1;
  int top_k = 1;
  int64_t num_tiles_bound = 0;       // no plan has more tiles
  __nv_bfloat16* x_tiles = nullptr;  // of kernels that lay x out first; theirs is the layout
  __nv_bfloat16* h = nullptr;        // the layout is the kernel's own
  __nv_bfloat16* y = nullptr;        // [num_assignments, y_stride], row a of assignment a
  int64_t y_stride = 0;
  int64_t y_cols = 0;  // that may be written, a multiple of 8

#ifdef __CUDACC__
  __device__ int64_t num_tiles() const {
    return plan.tiles == nullptr ? num_tiles_bound : *plan.num_tiles;
  }
  __device__ MoeTile tile(int64_t tile_idx) const {
    if (plan.tiles != nullptr) {
      const int4 words = reinterpret_cast<const int4*>(plan.tiles)[tile_idx];
      return {words.x, words.y, words.z, words.w};
    }
    const int64_t first = tile_idx * plan.tile_rows;
    const int64_t left = num_assignments - first;
    const int64_t num_rows = left < plan.tile_rows ? left : plan.tile_rows;
    return {0, static_cast<int32_t>(first), static_cast<int32_t>(num_rows), 0};
  }
  __device__ int32_t assignment(int32_t position) const {
    return plan.tiles == nullptr ? position : plan.sorted[position];
  }
#endif
};

/// The part that does not depend on the kernel; h and y are left to it.
inline GatedMlp gated_mlp(const MoePrefillArgs& args) {
  const MoeArgs& moe = args.moe;
  const ExpertLayout& layout = moe.table.layout;
  AUGUR_REQUIRE(moe.x.dtype == DType::kBF16 && moe.x.num_cols == layout.hidden_size,
                std::to_string(moe.x.num_cols));
  AUGUR_REQUIRE(args.plan.tiles != nullptr, "a plan");
  const int64_t num_assignments = moe.x.num_rows * moe.top_k;
  AUGUR_REQUIRE(num_assignments < int64_t{1} << 31, std::to_string(num_assignments));
  GatedMlp mlp;
  mlp.x = moe.x.row<const __nv_bfloat16>(0);
  mlp.x_stride = moe.x.row_stride;
  mlp.hidden = static_cast<int>(layout.hidden_size);
  mlp.intermediate = static_cast<int>(layout.intermediate_size);
  mlp.gate = moe.table.slots;
  mlp.up = moe.table.slots + layout.up_offset;
  mlp.down = moe.table.slots + layout.down_offset;
  mlp.slot_bytes = layout.block_bytes;
  mlp.plan = args.plan;
  mlp.num_assignments = num_assignments;
  mlp.num_experts = moe.table.num_experts;
  mlp.top_k = moe.top_k;
  mlp.num_tiles_bound = max_tiles(num_assignments, moe.table.num_experts, args.plan.tile_rows);
  mlp.y_stride = round_up(layout.hidden_size, kTileCols);
  mlp.y_cols = mlp.y_stride;
  return mlp;
}

inline GatedMlp gated_mlp(const MlpPrefillArgs& args, int tile_rows) {
  const MlpWeights& weights = args.mlp.weights;
  const Tensor& x = args.mlp.x;
  AUGUR_REQUIRE(x.dtype == DType::kBF16 && x.num_cols == weights.gate.num_cols,
                std::to_string(x.num_cols));
  GatedMlp mlp;
  mlp.x = x.row<const __nv_bfloat16>(0);
  mlp.x_stride = x.row_stride;
  mlp.hidden = static_cast<int>(x.num_cols);
  mlp.intermediate = static_cast<int>(weights.gate.num_rows);
  mlp.gate = weights.gate.data;
  mlp.up = weights.up.data;
  mlp.down = weights.down.data;
  mlp.plan.tile_rows = tile_rows;
  mlp.num_assignments = x.num_rows;
  mlp.num_tiles_bound = (x.num_rows + tile_rows - 1) / tile_rows;
  mlp.y_stride = round_up(x.num_cols, kTileCols);
  mlp.y_cols = mlp.y_stride;
  return mlp;
}

}  // namespace augur::cuda
