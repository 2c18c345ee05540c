#include "kernels/cuda/router.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_plan.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/router_logits.h"
#include "kernels/cuda/row_access.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kMaxExperts = 1024;

// A key rises with the score; 0, less than any, stands for what is out. NaN counts as -infinity.
constexpr uint32_t kOut = 0;
__device__ __forceinline__ uint32_t key_of(float score) {
  if (isnan(score)) score = -INFINITY;
  const uint32_t bits = __float_as_uint(score + 0.0f);  // -0 becomes 0: they are equal
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float score_of(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key);
}

// The index of the largest of the warp's keys, the lowest of equals; then that one is out.
// Index i * 32 + lane is in keys[i].
template <int kPerLane>
__device__ __forceinline__ int take_best(uint32_t (&keys)[kPerLane], int lane) {
  uint32_t best = kOut;
  int at = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (keys[i] > best) {
      best = keys[i];
      at = i * kWarpLanes + lane;
    }
  }
  const uint32_t best_of_all = __reduce_max_sync(kAllLanes, best);
  const unsigned index =
      __reduce_min_sync(kAllLanes, best == best_of_all ? static_cast<unsigned>(at) : 0xFFFFFFFFu);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (static_cast<int>(index) == i * kWarpLanes + lane) keys[i] = kOut;
  }
  return static_cast<int>(index);
}

// Takes out the experts of all but the top_groups best groups. `choice` holds the keys of all
// experts in shared memory and is overwritten.
template <int kPerLane>
__device__ void keep_best_groups(const RouterArgs& args,
                                 uint32_t (&keys)[kPerLane],
                                 float* choice,
                                 int lane) {
  const int group_size = args.num_experts / args.num_groups;
  __syncwarp();
  uint32_t group_keys[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int group = i * kWarpLanes + lane;
    group_keys[i] = kOut;
    if (group >= args.num_groups) continue;
    float best = -INFINITY;
    float second = -INFINITY;
    for (int j = 0; j < group_size; ++j) {
      const float score = choice[group * group_size + j];
      if (score > best) {
        second = best;
        best = score;
      } else if (score > second) {
        second = score;
      }
    }
    group_keys[i] = key_of(group_size == 1 ? best : best + second);
  }
  for (int i = 0; i < args.top_groups; ++i) take_best(group_keys, lane);
  // Those taken are out; tell the lanes that hold their experts.
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int group = i * kWarpLanes + lane;
    if (group < args.num_groups) choice[group] = group_keys[i] == kOut ? 1.0f : 0.0f;
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = i * kWarpLanes + lane;
    if (expert < args.num_experts && choice[expert / group_size] == 0.0f) keys[i] = kOut;
  }
}

// Up to so many tokens each has a block, whose warps share the adding up; with more, a warp each.
constexpr int64_t kMaxBlockTokens = 256;
// What the block that makes the plan can hold.
constexpr int kPlanRounds = 4;
constexpr int kMaxPlanExperts = 512;

struct NoPlan {};

// The logits of the warp's token: element i of a lane is that of expert i * 32 + lane. Warps that
// share a token add up every fourth slice each; the first of them has the result.
template <int kPerLane, bool kSharesToken>
__device__ __forceinline__ void add_up_logits(const float* partial,
                                              int64_t slice_stride,
                                              int num_slices,
                                              int num_experts,
                                              float* sums,
                                              float (&logits)[kPerLane]) {
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) logits[i] = 0;
#pragma unroll 4
  for (int s = kSharesToken ? warp : 0; s < num_slices; s += kSharesToken ? kWarps : 1) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int expert = i * kWarpLanes + lane;
      if (expert < num_experts) logits[i] += partial[s * slice_stride + expert];
    }
  }
  if constexpr (kSharesToken) {
    if (num_slices == 1) return;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      sums[(warp * kPerLane + i) * kWarpLanes + lane] = logits[i];
    }
    __syncthreads();
#pragma unroll
    for (int w = 1; w < kWarps; ++w) {
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        logits[i] += sums[(w * kPerLane + i) * kWarpLanes + lane];
      }
    }
  }
}

// Scores the experts of a token by its logits and chooses, one warp. score and choice have room
// for every expert.
template <int kPerLane>
__device__ __forceinline__ void choose_for_token(const RouterArgs& args,
                                                 int64_t token,
                                                 const float (&logits)[kPerLane],
                                                 const float (&correction)[kPerLane],
                                                 float* score,
                                                 float* choice) {
  const int lane = threadIdx.x % kWarpLanes;
  const int num_experts = args.num_experts;
  const bool is_padding = args.num_valid != nullptr && token >= *args.num_valid;
  if (args.logits.data != nullptr) {
    float* const to = row_of<float>(args.logits, token);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int expert = i * kWarpLanes + lane;
      if (expert < num_experts) to[expert] = logits[i];
    }
  }

  // Score.
  float largest = -INFINITY;
  float total = 0;
  if (args.scoring == RouterScoring::kSoftmax) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (i * kWarpLanes + lane < num_experts) largest = fmaxf(largest, logits[i]);
    }
    largest = score_of(__reduce_max_sync(kAllLanes, key_of(largest)));
  }
  float scores[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    scores[i] = args.scoring == RouterScoring::kSigmoid ? 1.0f / (1.0f + expf(-logits[i]))
                                                        : expf(logits[i] - largest);
    if (i * kWarpLanes + lane < num_experts) total += scores[i];
  }
  if (args.scoring == RouterScoring::kSoftmax) {
    total = warp_sum(total);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) scores[i] /= total;
  }
  uint32_t keys[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = i * kWarpLanes + lane;
    keys[i] = kOut;
    if (expert >= num_experts) continue;
    score[expert] = scores[i];
    choice[expert] = scores[i] + correction[i];
    keys[i] = key_of(choice[expert]);
    if (isnan(choice[expert])) choice[expert] = -INFINITY;
  }

  // Choose; lane k keeps choice k.
  if (args.num_groups > 1) keep_best_groups(args, keys, choice, lane);
  __syncwarp();
  int my_expert = -1;
  float my_weight = 0;
  float sum = 0;
  for (int k = 0; k < args.top_k; ++k) {
    const int expert =
        args.forced != nullptr ? args.forced[token * args.top_k + k] : take_best(keys, lane);
    const float weight = expert >= 0 ? score[expert] : 0.0f;
    sum += weight;
    if (lane == k) {
      my_expert = expert;
      my_weight = weight;
    }
  }
  if (args.normalise_top_k) {
    if (args.scoring == RouterScoring::kSigmoid) sum += 1e-20f;
    my_weight /= sum;
  }
  if (lane < args.top_k) {
    args.experts[token * args.top_k + lane] = is_padding ? -1 : my_expert;
    args.weights[token * args.top_k + lane] =
        is_padding || my_expert < 0 ? 0.0f : my_weight * args.scaling_factor;
  }
}

template <int kPerLane>
__device__ __forceinline__ void load_correction(const RouterArgs& args,
                                                float (&correction)[kPerLane]) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = i * kWarpLanes + static_cast<int>(threadIdx.x) % kWarpLanes;
    const bool is_there = args.correction != nullptr && expert < args.num_experts;
    correction[i] = is_there ? args.correction[expert] : 0.0f;
  }
}

// Many tokens: a warp each.
template <int kPerLane>
__global__ void __launch_bounds__(kThreads)
    choose_experts_kernel(RouterArgs args, const float* partial, int num_slices) {
  __shared__ float score[kWarps][kPerLane * kWarpLanes];
  __shared__ float choice[kWarps][kPerLane * kWarpLanes];
  const int warp = threadIdx.x / kWarpLanes;
  const int64_t token = int64_t{blockIdx.x} * kWarps + warp;
  float correction[kPerLane];
  load_correction(args, correction);
  let_next_kernel_start();
  wait_for_previous_kernels();
  if (token >= args.x.num_rows) return;
  float logits[kPerLane];
  add_up_logits<kPerLane, false>(partial + token * args.num_experts,
                                 args.x.num_rows * args.num_experts, num_slices, args.num_experts,
                                 nullptr, logits);
  choose_for_token(args, token, logits, correction, score[warp], choice[warp]);
}

// Few tokens: a block each. With a plan to make, the block that is done last makes it.
template <int kPerLane, bool kMakesPlan>
__global__ void __launch_bounds__(kThreads) choose_experts_by_block_kernel(
    RouterArgs args, const float* partial, int num_slices, MoePlanArgs plan, int32_t* ticket) {
  __shared__ float sums[kWarps * kPerLane * kWarpLanes];
  __shared__ float score[kPerLane * kWarpLanes];
  __shared__ float choice[kPerLane * kWarpLanes];
  __shared__ std::conditional_t<kMakesPlan, PlaceMemory<kThreads, kMaxPlanExperts>, NoPlan> memory;
  __shared__ bool is_last;
  const int64_t token = blockIdx.x;
  float correction[kPerLane];
  load_correction(args, correction);
  if constexpr (kMakesPlan) clear_counts(plan.num_experts, memory);
  let_next_kernel_start();
  wait_for_previous_kernels();
  float logits[kPerLane];
  add_up_logits<kPerLane, true>(partial + token * args.num_experts,
                                args.x.num_rows * args.num_experts, num_slices, args.num_experts,
                                sums, logits);
  if (threadIdx.x < kWarpLanes) {
    choose_for_token(args, token, logits, correction, score, choice);
    if (kMakesPlan) {
      // What the lanes have written comes before the ticket.
      if (gridDim.x > 1) __threadfence();
      __syncwarp();
      if (threadIdx.x == 0) {
        is_last = gridDim.x == 1 || atomicAdd(ticket, 1) == static_cast<int>(gridDim.x) - 1;
      }
    }
  }
  if constexpr (kMakesPlan) {
    __syncthreads();
    if (!is_last) return;
    if (gridDim.x > 1) __threadfence();
    place_share<kPlanRounds>(plan, 0, 1, memory);
  }
}

template <int kPerLane, bool kMakesPlan>
void launch_by_block(const RouterArgs& args,
                     const float* partial,
                     int num_slices,
                     const MoePlanArgs& plan,
                     int32_t* ticket,
                     cudaStream_t stream) {
  launch(choose_experts_by_block_kernel<kPerLane, kMakesPlan>,
         {.grid = dim3(static_cast<unsigned>(args.x.num_rows)), .block = dim3(kThreads)}, stream,
         args, partial, num_slices, plan, ticket);
}

template <int kPerLane>
void launch_by_warp(const RouterArgs& args,
                    const float* partial,
                    int num_slices,
                    cudaStream_t stream) {
  launch(choose_experts_kernel<kPerLane>,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(args.x.num_rows, kWarps))),
          .block = dim3(kThreads)},
         stream, args, partial, num_slices);
}

// Calls `action` with as many experts per lane, a constant, as hold num_experts.
template <typename Action>
void for_experts_per_lane(int num_experts, Action&& action) {
  if (num_experts <= 4 * kWarpLanes) {
    action(std::integral_constant<int, 4>());
  } else if (num_experts <= 16 * kWarpLanes) {
    action(std::integral_constant<int, 16>());
  } else {
    action(std::integral_constant<int, 32>());
  }
}

void require_router(const RouterArgs& args) {
  AUGUR_REQUIRE(args.x.dtype == DType::kF32 && args.logits.dtype == DType::kF32, "float32 only");
  AUGUR_REQUIRE(args.x.num_cols % 4 != 0 || (has_aligned_rows(args.x.data, args.x.row_stride * 4) &&
                                             has_aligned_rows(args.weight, 0)),
                "x or weight is not aligned");
  AUGUR_REQUIRE(args.num_experts >= 1 && args.num_experts <= kMaxExperts,
                std::to_string(args.num_experts) + " experts");
  AUGUR_REQUIRE(args.num_groups >= 1 && args.num_experts % args.num_groups == 0 &&
                    args.top_groups >= 1 && args.top_groups <= args.num_groups,
                std::to_string(args.top_groups) + " of " + std::to_string(args.num_groups) +
                    " groups of " + std::to_string(args.num_experts) + " experts");
  const int num_competing = args.num_groups == 1
                                ? args.num_experts
                                : args.num_experts / args.num_groups * args.top_groups;
  AUGUR_REQUIRE(args.top_k >= 1 && args.top_k <= std::min(num_competing, kWarpLanes),
                std::to_string(args.top_k) + " of " + std::to_string(num_competing) + " experts");
}

// The workspace: a ticket, then the partial sums.
constexpr int64_t kTicketBytes = 256;

// Makes the plan too where plan != nullptr; then requires can_plan_too.
void route(const RouterArgs& args, const MoePlanArgs* plan, void* workspace, cudaStream_t stream) {
  const RouterLogitsPlan how =
      plan_router_logits(args.x.num_rows, args.x.num_cols, args.num_experts);
  auto* const ticket = static_cast<int32_t*>(workspace);
  auto* const partial = reinterpret_cast<float*>(static_cast<std::byte*>(workspace) + kTicketBytes);
  router_logits(args, how, partial, ticket, stream);
  for_experts_per_lane(args.num_experts, [&](auto per_lane) {
    if (args.x.num_rows > kMaxBlockTokens) {
      launch_by_warp<per_lane()>(args, partial, how.num_slices, stream);
    } else if (plan == nullptr) {
      launch_by_block<per_lane(), false>(args, partial, how.num_slices, {}, ticket, stream);
    } else if constexpr (per_lane() * kWarpLanes <= kMaxPlanExperts) {
      launch_by_block<per_lane(), true>(args, partial, how.num_slices, *plan, ticket, stream);
    }
  });
}

bool can_plan_too(const RouterArgs& args) {
  const int64_t num_tokens = args.x.num_rows;
  return num_tokens >= 1 && num_tokens * args.top_k <= kPlanRounds * kThreads &&
         args.num_experts <= kMaxPlanExperts &&
         plan_router_logits(num_tokens, args.x.num_cols, args.num_experts).token_tile < 64;
}

}  // namespace

int64_t router_workspace_bytes(int64_t max_tokens, int64_t hidden, int num_experts) {
  // The number of slices falls as tokens grow past one tile: look at every count.
  int64_t max_rows = 0;
  for (int64_t n = 1; n <= max_tokens; ++n) {
    max_rows = std::max(max_rows, n * plan_router_logits(n, hidden, num_experts).num_slices);
  }
  return kTicketBytes + max_rows * num_experts * 4;
}

void router(const RouterArgs& args, void* workspace, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("router");
  require_router(args);
  if (args.x.num_rows > 0) route(args, nullptr, workspace, stream);
}

void router_and_plan(const RouterArgs& args,
                     const MoePlanArgs& plan,
                     void* workspace,
                     cudaStream_t stream) {
  AUGUR_NVTX_RANGE("router_and_plan");
  require_router(args);
  AUGUR_REQUIRE(plan.experts == args.experts && plan.num_experts == args.num_experts &&
                    plan.num_assignments == args.x.num_rows * args.top_k,
                "the plan is of other choices");
  if (can_plan_too(args)) {
    route(args, &plan, workspace, stream);
  } else {
    router(args, workspace, stream);
    plan_moe(plan, stream);
  }
}

int64_t bytes_moved(const RouterArgs& args) {
  const int64_t logits = args.logits.data == nullptr ? 0 : args.num_experts * 4;
  return args.num_experts * args.x.num_cols * 4 +
         args.x.num_rows * (args.x.num_cols * 4 + args.top_k * 8 + logits);
}

}  // namespace augur::cuda
