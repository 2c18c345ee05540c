#include "kernels/cuda/moe_plan.h"

#include <cstddef>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_plan.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kMaxExperts = 1024;
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

template <int kRounds, bool kIsAlone, int kMax>
__global__ void __launch_bounds__(kThreads) place_kernel(MoePlanArgs args) {
  __shared__ PlaceMemory<kThreads, kMax> memory;
  clear_counts(args.num_experts, memory);
  let_next_kernel_start();
  wait_for_previous_kernels();
  __syncthreads();
  place_share<kRounds, kIsAlone>(args, static_cast<int>(blockIdx.x), static_cast<int>(gridDim.x),
                                 memory);
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
