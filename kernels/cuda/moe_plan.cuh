// Placing assignments by expert, by one block: shared by plan_moe and the router.
#pragma once

#include <cstdint>

#include "kernels/cuda/moe_plan.h"

namespace augur::cuda {

/// What a block of kThreads needs in shared memory to place assignments of up to kMaxExperts.
template <int kThreads, int kMaxExperts>
struct PlaceMemory {
  static constexpr int kWarps = kThreads / 32;
  uint64_t scan_sums[kWarps];
  int32_t block_start[kMaxExperts];  // place of the block's first row of the expert
  int32_t first_row[kMaxExperts + 1];
  int32_t first_tile[kMaxExperts + 1];
  // Of each warp, how many of an expert it has; then how many the warps before it have.
  uint16_t warp_counts[kWarps][kMaxExperts];
};

/// Rows in the low half, tiles in the high half.
__device__ __forceinline__ uint64_t rows_and_tiles(int32_t rows, int tile_rows) {
  const auto tiles = static_cast<uint32_t>((rows + tile_rows - 1) / tile_rows);
  return uint64_t{tiles} << 32 | static_cast<uint32_t>(rows);
}

/// The sum of the threads' values before this one's. `sums` has room for a value per warp.
template <int kWarps>
__device__ __forceinline__ uint64_t exclusive_block_scan(uint64_t value, uint64_t (&sums)[kWarps]) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const auto inclusive_warp_scan = [&](uint64_t x) {
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const uint64_t before = __shfl_up_sync(0xFFFFFFFFu, x, distance);
      if (lane >= distance) x += before;
    }
    return x;
  };
  const uint64_t inclusive = inclusive_warp_scan(value);
  if (lane == 31) sums[warp] = inclusive;
  __syncthreads();
  uint64_t before = 0;
#pragma unroll
  for (int w = 0; w < kWarps - 1; ++w) before += w < warp ? sums[w] : 0;
  return before + inclusive - value;
}

/// To be called by every thread before it reads anything, with a __syncthreads() before
/// place_share.
template <int kThreads, int kMaxExperts>
__device__ __forceinline__ void clear_counts(int num_experts,
                                             PlaceMemory<kThreads, kMaxExperts>& memory) {
  for (int e = threadIdx.x; e < num_experts; e += kThreads) {
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) memory.warp_counts[w][e] = 0;
  }
}

/// Places share `share_idx` of num_shares: kRounds * kThreads assignments. Each warp has kRounds *
/// 32 consecutive ones; the place of one is where the expert's rows start, plus those of earlier
/// shares (counted in args.plan.scratch), earlier warps, earlier rounds and lower lanes: so the
/// order within an expert is that of the numbers. Then it writes its part of the tiles.
template <int kRounds, int kThreads, int kMaxExperts>
__device__ __forceinline__ void place_share(const MoePlanArgs& args,
                                            int share_idx,
                                            int num_shares,
                                            PlaceMemory<kThreads, kMaxExperts>& memory) {
  constexpr int kWarps = kThreads / 32;
  constexpr int kMaxPerThread = (kMaxExperts + kThreads - 1) / kThreads;
  const int num_experts = args.num_experts;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;

  // Rank each assignment among the warp's of the same expert.
  const int64_t first = (int64_t{share_idx} * kWarps + warp) * (kRounds * 32) + lane;
  int expert[kRounds];
  int rank[kRounds];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int64_t i = first + round * 32;
    expert[round] = i < args.num_assignments ? __ldcg(args.experts + i) : -1;
  }
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    rank[round] = 0;
    // A warp past the end has nothing to count.
    if (__all_sync(0xFFFFFFFFu, expert[round] < 0)) continue;
    const unsigned same = __match_any_sync(0xFFFFFFFFu, expert[round]);
    const bool is_valid = expert[round] >= 0;
    uint16_t& count = memory.warp_counts[warp][is_valid ? expert[round] : 0];
    const int before = is_valid ? count : 0;
    rank[round] = before + __popc(same & ((1u << lane) - 1));
    __syncwarp();
    if (is_valid && lane == __ffs(same) - 1) count = static_cast<uint16_t>(before + __popc(same));
    __syncwarp();
  }
  __syncthreads();

  // Sum over the warps and the shares, then over the experts.
  const int per_thread = (num_experts + kThreads - 1) / kThreads;
  const int first_expert = static_cast<int>(threadIdx.x) * per_thread;
  int32_t rows[kMaxPerThread] = {};
  int32_t rows_before[kMaxPerThread] = {};
  uint64_t sum = 0;
#pragma unroll
  for (int j = 0; j < kMaxPerThread; ++j) {
    const int e = first_expert + j;
    if (j >= per_thread || e >= num_experts) continue;
    int32_t in_share = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int count = memory.warp_counts[w][e];
      memory.warp_counts[w][e] = static_cast<uint16_t>(in_share);
      in_share += count;
    }
    if (num_shares == 1) {
      rows[j] = in_share;
    } else {
#pragma unroll 8
      for (int share = 0; share < num_shares; ++share) {
        const int32_t count = args.plan.scratch[int64_t{share} * num_experts + e];
        rows[j] += count;
        if (share < share_idx) rows_before[j] += count;
      }
    }
    sum += rows_and_tiles(rows[j], args.plan.tile_rows);
  }
  uint64_t start = exclusive_block_scan<kWarps>(sum, memory.scan_sums);
#pragma unroll
  for (int j = 0; j < kMaxPerThread; ++j) {
    const int e = first_expert + j;
    if (j >= per_thread || e >= num_experts) continue;
    memory.first_row[e] = static_cast<int32_t>(start);
    memory.first_tile[e] = static_cast<int32_t>(start >> 32);
    memory.block_start[e] = static_cast<int32_t>(start) + rows_before[j];
    start += rows_and_tiles(rows[j], args.plan.tile_rows);
    if (e == num_experts - 1) {
      memory.first_row[num_experts] = static_cast<int32_t>(start);
      memory.first_tile[num_experts] = static_cast<int32_t>(start >> 32);
    }
  }
  __syncthreads();

#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    if (expert[round] < 0) continue;
    const int32_t place =
        memory.block_start[expert[round]] + memory.warp_counts[warp][expert[round]] + rank[round];
    args.plan.sorted[place] = static_cast<int32_t>(first + round * 32);
  }

  // The tiles: one per thread, whose expert is the last that starts at it or before.
  const int32_t num_tiles = memory.first_tile[num_experts];
  if (share_idx == 0 && threadIdx.x == 0) *args.plan.num_tiles = num_tiles;
  for (int32_t tile = share_idx * kThreads + static_cast<int32_t>(threadIdx.x); tile < num_tiles;
       tile += num_shares * kThreads) {
    int low = 0;
    int high = num_experts;  // first_tile[low] <= tile < first_tile[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (memory.first_tile[middle] <= tile ? low : high) = middle;
    }
    const int32_t start_row =
        memory.first_row[low] + (tile - memory.first_tile[low]) * args.plan.tile_rows;
    args.plan.tiles[tile] = {
        .expert = low,
        .first = start_row,
        .num_rows = min(args.plan.tile_rows, memory.first_row[low + 1] - start_row),
        .slot = args.slot_of_expert[low]};
  }
}

}  // namespace augur::cuda
