#include "kernels/cuda/moe_plan.h"

#include <cstddef>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int kMaxExperts = 2 * kThreads;  // a thread has the sums of up to two experts
constexpr int64_t kAlignment = 256;

// Up to this many assignments, one block counts and places; otherwise blocks of kSharedPerBlock
// count first, and each then adds up what all have counted.
constexpr int kRoundsAlone = 4;
constexpr int64_t kMaxAlone = kThreads * kRoundsAlone;
constexpr int kRoundsShared = 8;
constexpr int64_t kSharedPerBlock = kThreads * kRoundsShared;

constexpr int64_t aligned(int64_t num_bytes) {
  return (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

int64_t num_shares(int64_t num_assignments) {
  return num_assignments <= kMaxAlone ? 1 : ceil_div(num_assignments, kSharedPerBlock);
}

// counts[block][expert] of the block's share of the assignments.
__global__ void __launch_bounds__(kThreads) count_kernel(MoePlanArgs args) {
  __shared__ int32_t counts[kMaxExperts];
  for (int e = threadIdx.x; e < args.num_experts; e += kThreads) counts[e] = 0;
  let_next_kernel_start();
  wait_for_previous_kernels();
  __syncthreads();
  const int64_t first = int64_t{blockIdx.x} * kSharedPerBlock + threadIdx.x;
#pragma unroll
  for (int round = 0; round < kRoundsShared; ++round) {
    const int64_t i = first + round * kThreads;
    const int expert = i < args.num_assignments ? args.experts[i] : -1;
    if (expert >= 0) atomicAdd(&counts[expert], 1);  // of integers: any order gives the same
  }
  __syncthreads();
  int32_t* const to = args.plan.scratch + int64_t{blockIdx.x} * args.num_experts;
  for (int e = threadIdx.x; e < args.num_experts; e += kThreads) to[e] = counts[e];
}

// Rows in the low half, tiles in the high half.
__device__ __forceinline__ uint64_t rows_and_tiles(int32_t rows, int tile_rows) {
  const auto tiles = static_cast<uint32_t>((rows + tile_rows - 1) / tile_rows);
  return uint64_t{tiles} << 32 | static_cast<uint32_t>(rows);
}

// The sum of the threads' values before this one's. `sums` has room for a value per warp.
__device__ uint64_t exclusive_block_scan(uint64_t value, uint64_t (&sums)[kWarps]) {
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  const auto inclusive_warp_scan = [&](uint64_t x) {
#pragma unroll
    for (int distance = 1; distance < kWarpLanes; distance *= 2) {
      const uint64_t before = __shfl_up_sync(0xFFFFFFFFu, x, distance);
      if (lane >= distance) x += before;
    }
    return x;
  };
  const uint64_t inclusive = inclusive_warp_scan(value);
  if (lane == kWarpLanes - 1) sums[warp] = inclusive;
  __syncthreads();
  const uint64_t warps = inclusive_warp_scan(lane < kWarps ? sums[lane] : 0);
  const uint64_t before = __shfl_sync(0xFFFFFFFFu, warps, warp > 0 ? warp - 1 : 0);
  return inclusive - value + (warp > 0 ? before : 0);
}

// Places the block's share. A warp has kRounds * 32 consecutive assignments; their place is where
// the expert's rows start, plus those of earlier blocks, earlier warps, earlier rounds and lower
// lanes: so the order within an expert is that of the numbers.
template <int kRounds, bool kIsAlone>
__global__ void __launch_bounds__(kThreads) place_kernel(MoePlanArgs args, int num_blocks) {
  // Dynamic: of each warp, how many of an expert it has; then how many the warps before it have.
  extern __shared__ uint16_t warp_counts[];
  __shared__ uint64_t scan_sums[kWarps];
  __shared__ int32_t block_start[kMaxExperts];  // place of the block's first row of the expert
  __shared__ int32_t first_row[kMaxExperts + 1];
  __shared__ int32_t first_tile[kMaxExperts + 1];
  const int num_experts = args.num_experts;
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  for (int i = threadIdx.x; i < kWarps * num_experts; i += kThreads) warp_counts[i] = 0;
  let_next_kernel_start();
  wait_for_previous_kernels();
  __syncthreads();

  // Rank each assignment among the warp's of the same expert.
  const int64_t first = (int64_t{blockIdx.x} * kWarps + warp) * (kRounds * kWarpLanes) + lane;
  int expert[kRounds];
  int rank[kRounds];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int64_t i = first + round * kWarpLanes;
    expert[round] = i < args.num_assignments ? args.experts[i] : -1;
  }
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const unsigned same = __match_any_sync(0xFFFFFFFFu, expert[round]);
    uint16_t* const count = warp_counts + warp * num_experts + expert[round];
    const bool is_valid = expert[round] >= 0;
    const int before = is_valid ? *count : 0;
    rank[round] = before + __popc(same & ((1u << lane) - 1));
    __syncwarp();
    if (is_valid && lane == __ffs(same) - 1) {
      *count = static_cast<uint16_t>(before + __popc(same));
    }
    __syncwarp();
  }
  __syncthreads();

  // Sum over the warps and the blocks, then over the experts.
  const int per_thread = num_experts <= kThreads ? 1 : 2;
  const int first_expert = threadIdx.x * per_thread;
  int32_t rows[2] = {};
  int32_t rows_before[2] = {};
  uint64_t sum = 0;
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int e = first_expert + j;
    if (j >= per_thread || e >= num_experts) continue;
    int32_t in_block = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int count = warp_counts[w * num_experts + e];
      warp_counts[w * num_experts + e] = static_cast<uint16_t>(in_block);
      in_block += count;
    }
    if constexpr (kIsAlone) {
      rows[j] = in_block;
    } else {
#pragma unroll 8
      for (int b = 0; b < num_blocks; ++b) {
        const int32_t count = args.plan.scratch[int64_t{b} * num_experts + e];
        rows[j] += count;
        if (b < static_cast<int>(blockIdx.x)) rows_before[j] += count;
      }
    }
    sum += rows_and_tiles(rows[j], args.plan.tile_rows);
  }
  uint64_t start = exclusive_block_scan(sum, scan_sums);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int e = first_expert + j;
    if (j >= per_thread || e >= num_experts) continue;
    first_row[e] = static_cast<int32_t>(start);
    first_tile[e] = static_cast<int32_t>(start >> 32);
    block_start[e] = first_row[e] + rows_before[j];
    start += rows_and_tiles(rows[j], args.plan.tile_rows);
    if (e == num_experts - 1) {
      first_row[num_experts] = static_cast<int32_t>(start);
      first_tile[num_experts] = static_cast<int32_t>(start >> 32);
    }
  }
  __syncthreads();

#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    if (expert[round] < 0) continue;
    const int32_t place =
        block_start[expert[round]] + warp_counts[warp * num_experts + expert[round]] + rank[round];
    args.plan.sorted[place] = static_cast<int32_t>(first + round * kWarpLanes);
  }

  // The tiles: one per thread, whose expert is the last that starts at it or before.
  const int32_t num_tiles = first_tile[num_experts];
  if (blockIdx.x == 0 && threadIdx.x == 0) *args.plan.num_tiles = num_tiles;
  for (int32_t tile = static_cast<int32_t>(blockIdx.x) * kThreads + threadIdx.x; tile < num_tiles;
       tile += static_cast<int32_t>(gridDim.x) * kThreads) {
    int low = 0;
    int high = num_experts;  // first_tile[low] <= tile < first_tile[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first_tile[middle] <= tile ? low : high) = middle;
    }
    const int32_t start_row = first_row[low] + (tile - first_tile[low]) * args.plan.tile_rows;
    args.plan.tiles[tile] = {.expert = low,
                             .first = start_row,
                             .num_rows = min(args.plan.tile_rows, first_row[low + 1] - start_row),
                             .slot = args.slot_of_expert[low]};
  }
}

}  // namespace

int64_t moe_plan_bytes(int64_t num_assignments, int64_t num_experts, int64_t tile_rows) {
  return aligned(num_assignments * 4) +
         aligned(max_tiles(num_assignments, num_experts, tile_rows) *
                 static_cast<int64_t>(sizeof(MoeTile))) +
         aligned(4) + aligned(num_shares(num_assignments) * num_experts * 4);
}

MoePlan place_moe_plan(void* memory,
                       int64_t num_assignments,
                       int64_t num_experts,
                       int64_t tile_rows) {
  auto* next = static_cast<std::byte*>(memory);
  const auto take = [&](int64_t num_bytes) {
    std::byte* const taken = next;
    next += aligned(num_bytes);
    return taken;
  };
  MoePlan plan;
  plan.sorted = reinterpret_cast<int32_t*>(take(num_assignments * 4));
  plan.tiles = reinterpret_cast<MoeTile*>(take(max_tiles(num_assignments, num_experts, tile_rows) *
                                               static_cast<int64_t>(sizeof(MoeTile))));
  plan.num_tiles = reinterpret_cast<int32_t*>(take(4));
  plan.scratch = reinterpret_cast<int32_t*>(take(num_shares(num_assignments) * num_experts * 4));
  plan.tile_rows = static_cast<int>(tile_rows);
  return plan;
}

void plan_moe(const MoePlanArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("plan_moe");
  AUGUR_REQUIRE(args.num_experts >= 1 && args.num_experts <= kMaxExperts,
                std::to_string(args.num_experts) + " experts");
  AUGUR_REQUIRE(args.plan.tile_rows >= 1, std::to_string(args.plan.tile_rows) + " rows a tile");
  const int64_t num_blocks = num_shares(args.num_assignments);
  const Launch how = {.grid = dim3(static_cast<unsigned>(num_blocks)),
                      .block = dim3(kThreads),
                      .smem_bytes = int64_t{kWarps} * args.num_experts * 2};
  if (args.num_assignments <= kMaxAlone) {
    launch(place_kernel<kRoundsAlone, true>, how, stream, args, 1);
  } else {
    launch(count_kernel, {.grid = how.grid, .block = how.block}, stream, args);
    launch(place_kernel<kRoundsShared, false>, how, stream, args, num_blocks);
  }
}

}  // namespace augur::cuda
