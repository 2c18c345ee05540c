// The part of plan_moe that runs within a block.
#pragma once

#include <cstdint>
#include <type_traits>

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
  static constexpr bool kKeepsSlots = kMaxExperts <= 512;  // else there is no room
  int32_t slots[kKeepsSlots ? kMaxExperts : 1];
  // Of each warp, how many of an expert it has; then how many the warps before it have.
  uint16_t warp_counts[kWarps][kMaxExperts];
};

/// Rows in the low half, tiles in the high half.
template <typename Sum>
__device__ __forceinline__ Sum rows_and_tiles(int32_t rows, int tile_rows) {
  return static_cast<Sum>((rows + tile_rows - 1) / tile_rows) << (sizeof(Sum) * 4) |
         static_cast<Sum>(rows);
}
template <typename Sum>
__device__ __forceinline__ int32_t rows_of(Sum sum) {
  return static_cast<int32_t>(sum & ((Sum{1} << (sizeof(Sum) * 4)) - 1));
}
template <typename Sum>
__device__ __forceinline__ int32_t tiles_of(Sum sum) {
  return static_cast<int32_t>(sum >> (sizeof(Sum) * 4));
}

/// The sum of the threads' values before this one's. `sums` has room for a value per warp.
template <typename Sum, int kWarps>
__device__ __forceinline__ Sum exclusive_block_scan(Sum value, uint64_t (&sums)[kWarps]) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  Sum inclusive = value;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const Sum before = __shfl_up_sync(0xFFFFFFFFu, inclusive, distance);
    if (lane >= distance) inclusive += before;
  }
  if (lane == 31) sums[warp] = inclusive;
  __syncthreads();
  Sum before = 0;
#pragma unroll
  for (int w = 0; w < kWarps - 1; ++w) before += w < warp ? static_cast<Sum>(sums[w]) : 0;
  return before + inclusive - value;
}

/// To be called by every thread before it reads anything, with a __syncthreads() before
/// place_share.
template <int kThreads, int kMaxExperts>
__device__ __forceinline__ void clear_counts(int num_experts,
                                             PlaceMemory<kThreads, kMaxExperts>& memory) {
#pragma unroll 1
  for (int e = threadIdx.x; e < num_experts; e += kThreads) {
#pragma unroll
    for (int w = 0; w < kThreads / 32; ++w) memory.warp_counts[w][e] = 0;
  }
}

/// Places share `share_idx` of num_shares: kRounds * kThreads assignments. Each warp has kRounds *
/// 32 consecutive ones; the place of one is where the expert's rows start, plus those of earlier
/// shares (counted in args.plan.scratch), earlier warps, earlier rounds and lower lanes: so the
/// order within an expert is that of the numbers. Then it writes its part of the tiles.
template <int kRounds, bool kIsAlone, int kThreads, int kMaxExperts>
__device__ __forceinline__ void place_share(const MoePlanArgs& args,
                                            int share_idx,
                                            int num_shares,
                                            PlaceMemory<kThreads, kMaxExperts>& memory) {
  constexpr int kWarps = kThreads / 32;
  // A share alone has few enough rows for sums of two 16-bit halves.
  using Sum = std::conditional_t<kIsAlone, uint32_t, uint64_t>;
  static_assert(!kIsAlone || kRounds * kThreads < 1 << 16);
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
    expert[round] = i < args.num_assignments ? args.experts[i] : -1;
  }
  if constexpr (memory.kKeepsSlots) {
#pragma unroll 1
    for (int e = threadIdx.x; e < num_experts; e += kThreads) {
      memory.slots[e] = args.slot_of_expert[e];
    }
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
  Sum sum = 0;
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
    if constexpr (kIsAlone) {
      rows[j] = in_share;
    } else {
#pragma unroll 8
      for (int share = 0; share < num_shares; ++share) {
        const int32_t count = args.plan.scratch[int64_t{share} * num_experts + e];
        rows[j] += count;
        if (share < share_idx) rows_before[j] += count;
      }
    }
    sum += rows_and_tiles<Sum>(rows[j], args.plan.tile_rows);
  }
  Sum start = exclusive_block_scan(sum, memory.scan_sums);
#pragma unroll
  for (int j = 0; j < kMaxPerThread; ++j) {
    const int e = first_expert + j;
    if (j >= per_thread || e >= num_experts) continue;
    memory.first_row[e] = rows_of(start);
    memory.first_tile[e] = tiles_of(start);
    memory.block_start[e] = rows_of(start) + rows_before[j];
    start += rows_and_tiles<Sum>(rows[j], args.plan.tile_rows);
    if (e == num_experts - 1) {
      memory.first_row[num_experts] = rows_of(start);
      memory.first_tile[num_experts] = tiles_of(start);
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
#pragma unroll 1
  for (int32_t tile = share_idx * kThreads + static_cast<int32_t>(threadIdx.x); tile < num_tiles;
       tile += num_shares * kThreads) {
    int low = 0;
    int high = num_experts;  // first_tile[low] <= tile < first_tile[high]
#pragma unroll 1
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
        .slot = memory.kKeepsSlots ? memory.slots[low] : args.slot_of_expert[low]};
  }
}

}  // namespace augur::cuda
