#include "kernels/cuda/router.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/router_logits.h"
#include "kernels/cuda/row_access.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;
constexpr int kWarps = 4;  // a token each
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kMaxExperts = 1024;

// A key rises with the score; 0, less than any, stands for what is out. NaN counts as -infinity.
constexpr uint32_t kOut = 0;
__device__ __forceinline__ uint32_t key_of(float score) {
  if (isnan(score)) score = -INFINITY;
  const uint32_t bits = __float_as_uint(score + 0.0f);  // -0 becomes 0: they are equal
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
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

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  }
  return value;
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

// A warp per token; expert i * 32 + lane belongs to element i of the lane.
template <int kPerLane>
__global__ void __launch_bounds__(kWarps* kWarpLanes)
    choose_experts_kernel(RouterArgs args, const float* partial, int num_slices) {
  __shared__ float all_scores[kWarps][kPerLane * kWarpLanes];
  __shared__ float all_choices[kWarps][kPerLane * kWarpLanes];
  const int lane = threadIdx.x % kWarpLanes;
  float* const score = all_scores[threadIdx.x / kWarpLanes];
  float* const choice = all_choices[threadIdx.x / kWarpLanes];
  const int64_t token = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpLanes;
  const int64_t num_tokens = args.x.num_rows;
  const int num_experts = args.num_experts;
  float correction[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = i * kWarpLanes + lane;
    correction[i] =
        args.correction != nullptr && expert < num_experts ? args.correction[expert] : 0.0f;
  }
  let_next_kernel_start();
  wait_for_previous_kernels();
  if (token >= num_tokens) return;

  // Add up the logits.
  float logits[kPerLane] = {};
  for (int s = 0; s < num_slices; ++s) {
    const float* const from = partial + (s * num_tokens + token) * num_experts;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int expert = i * kWarpLanes + lane;
      if (expert < num_experts) logits[i] += from[expert];
    }
  }
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
    largest = warp_max(largest);
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
  const bool is_padding = args.num_valid != nullptr && token >= *args.num_valid;
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

void choose_experts(const RouterArgs& args,
                    const float* partial,
                    int num_slices,
                    cudaStream_t stream) {
  const Launch how = {
      .grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(args.x.num_rows, kWarps))),
      .block = dim3(kWarps * kWarpLanes)};
  if (args.num_experts <= 4 * kWarpLanes) {
    launch(choose_experts_kernel<4>, how, stream, args, partial, num_slices);
  } else if (args.num_experts <= 16 * kWarpLanes) {
    launch(choose_experts_kernel<16>, how, stream, args, partial, num_slices);
  } else {
    launch(choose_experts_kernel<32>, how, stream, args, partial, num_slices);
  }
}

}  // namespace

int64_t router_workspace_bytes(int64_t max_tokens, int64_t hidden, int num_experts) {
  // The number of slices falls as tokens grow past one tile: look at every count.
  int64_t max_rows = 0;
  for (int64_t n = 1; n <= max_tokens; ++n) {
    max_rows = std::max(max_rows, n * plan_router_logits(n, hidden, num_experts).num_slices);
  }
  return max_rows * num_experts * 4;
}

void router(const RouterArgs& args, void* workspace, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("router");
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
  if (args.x.num_rows == 0) return;
  const RouterLogitsPlan plan =
      plan_router_logits(args.x.num_rows, args.x.num_cols, args.num_experts);
  auto* const partial = static_cast<float*>(workspace);
  router_logits(args, plan, partial, stream);
  choose_experts(args, partial, plan.num_slices, stream);
}

int64_t bytes_moved(const RouterArgs& args) {
  const int64_t logits = args.logits.data == nullptr ? 0 : args.num_experts * 4;
  return args.num_experts * args.x.num_cols * 4 +
         args.x.num_rows * (args.x.num_cols * 4 + args.top_k * 8 + logits);
}

}  // namespace augur::cuda
