#include "kernels/cuda/moe_plan.h"

#include <cstddef>
#include <string>
#include <type_traits>

#include "kernels/cuda/align_up.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int kMaxExperts = 1024;

// Up to this many assignments, one block counts and places; otherwise blocks of kSharedPerBlock
// count first, and each then adds up what all have counted.
constexpr int kRoundsAlone = 4;
constexpr int64_t kMaxAlone = kThreads * kRoundsAlone;
constexpr int kRoundsShared = 8;
constexpr int64_t kSharedPerBlock = kThreads * kRoundsShared;

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

// What a block needs in shared memory to place assignments of up to kMax experts.
template <int kMax>
struct PlaceMemory {
  uint64_t scan_sums[kWarps];
  int32_t block_start[kMax];  // place of the block's first row of the expert
  // Of each warp, how many of an expert it has; then how many the warps before it have.
  uint16_t warp_counts[kWarps][kMax];
};

// Rows in the low half, tiles in the high half.
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

// The sum of the threads' values before this one's. `sums` has room for a value per warp.
template <typename Sum>
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

// The tiles of one expert, `rows` rows from `first` on.
__device__ __forceinline__ void write_tiles(
    const MoePlan& plan, int expert, int32_t slot, int32_t first, int32_t rows, int32_t tile) {
#pragma unroll 1
  for (int32_t row = 0; row < rows; row += plan.tile_rows, ++tile) {
    plan.tiles[tile] = {.expert = expert,
                        .first = first + row,
                        .num_rows = min(plan.tile_rows, rows - row),
                        .slot = slot};
  }
}

// Places the block's share of the assignments. Each warp has kRounds * 32 consecutive ones; the
// place of one is where the expert's rows start, plus those of earlier shares (counted in
// args.plan.scratch), earlier warps, earlier rounds and lower lanes: so the order within an expert
// is that of the numbers. Then it writes its part of the tiles.
template <int kRounds, bool kIsAlone, int kMax>
__global__ void __launch_bounds__(kThreads) place_kernel(MoePlanArgs args) {
  __shared__ PlaceMemory<kMax> memory;
  // A share alone has few enough rows for sums of two 16-bit halves.
  using Sum = std::conditional_t<kIsAlone, uint32_t, uint64_t>;
  static_assert(!kIsAlone || kRounds * kThreads < 1 << 16);
  constexpr int kMaxPerThread = (kMax + kThreads - 1) / kThreads;
  const int num_experts = args.num_experts;
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  const int share_idx = static_cast<int>(blockIdx.x);
  const int num_shares = static_cast<int>(gridDim.x);
  // The experts whose sums the thread makes.
  const int per_thread = (num_experts + kThreads - 1) / kThreads;
  const int first_expert = static_cast<int>(threadIdx.x) * per_thread;
#pragma unroll 1
  for (int e = threadIdx.x; e < num_experts; e += kThreads) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) memory.warp_counts[w][e] = 0;
  }
  let_next_kernel_start();
  wait_for_previous_kernels();
  __syncthreads();

  // Rank each assignment among the warp's of the same expert.
  const int64_t first = (int64_t{share_idx} * kWarps + warp) * (kRounds * 32) + lane;
  int expert[kRounds];
  int rank[kRounds];
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const int64_t i = first + round * 32;
    expert[round] = i < args.num_assignments ? args.experts[i] : -1;
  }
  int32_t slot[kMaxPerThread] = {};
#pragma unroll
  for (int j = 0; j < kMaxPerThread; ++j) {
    if (j < per_thread && first_expert + j < num_experts) {
      slot[j] = args.slot_of_expert[first_expert + j];
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
    memory.block_start[e] = rows_of(start) + rows_before[j];
    const Sum end = start + rows_and_tiles<Sum>(rows[j], args.plan.tile_rows);
    if (e % num_shares == share_idx) {
      write_tiles(args.plan, e, slot[j], rows_of(start), rows[j], tiles_of(start));
    }
    start = end;
    if (share_idx == 0 && e == num_experts - 1) *args.plan.num_tiles = tiles_of(end);
  }
  __syncthreads();

#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    if (expert[round] < 0) continue;
    const int32_t place =
        memory.block_start[expert[round]] + memory.warp_counts[warp][expert[round]] + rank[round];
    args.plan.sorted[place] = static_cast<int32_t>(first + round * 32);
  }
}

template <int kRounds, bool kIsAlone>
void launch_place(const MoePlanArgs& args, int64_t num_blocks, cudaStream_t stream) {
  const Launch how = {.grid = dim3(static_cast<unsigned>(num_blocks)), .block = dim3(kThreads)};
  if (args.num_experts <= kMaxExperts / 4) {
    launch(place_kernel<kRounds, kIsAlone, kMaxExperts / 4>, how, stream, args);
  } else {
    launch(place_kernel<kRounds, kIsAlone, kMaxExperts>, how, stream, args);
  }
}

}  // namespace

int64_t moe_plan_bytes(int64_t num_assignments, int64_t num_experts, int64_t tile_rows) {
  return align_up(num_assignments * 4) +
         align_up(max_tiles(num_assignments, num_experts, tile_rows) *
                  static_cast<int64_t>(sizeof(MoeTile))) +
         align_up(4) + align_up(num_shares(num_assignments) * num_experts * 4);
}

MoePlan place_moe_plan(void* memory,
                       int64_t num_assignments,
                       int64_t num_experts,
                       int64_t tile_rows) {
  auto* next = static_cast<std::byte*>(memory);
  const auto take = [&](int64_t num_bytes) {
    std::byte* const taken = next;
    next += align_up(num_bytes);
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
  if (args.num_assignments <= kThreads) {
    launch_place<1, true>(args, 1, stream);
  } else if (args.num_assignments <= kMaxAlone) {
    launch_place<kRoundsAlone, true>(args, 1, stream);
  } else {
    launch(count_kernel, {.grid = dim3(static_cast<unsigned>(num_blocks)), .block = dim3(kThreads)},
           stream, args);
    launch_place<kRoundsShared, false>(args, num_blocks, stream);
  }
}

}  // namespace augur::cuda
