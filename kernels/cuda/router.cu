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

// Takes out the experts of all but the top_groups best groups. `choice` holds what all experts
// compete by, in shared memory, and is overwritten.
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
#pragma unroll 1
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
#pragma unroll 1
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

// The logits of a token: element i of a lane is that of expert i * 32 + lane.
template <int kPerLane>
__device__ __forceinline__ void add_up_logits(const float* partial,
                                              int64_t slice_stride,
                                              int num_slices,
                                              int num_experts,
                                              float (&logits)[kPerLane]) {
  const int lane = threadIdx.x % kWarpLanes;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) logits[i] = 0;
#pragma unroll 2
  for (int s = 0; s < num_slices; ++s) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int expert = i * kWarpLanes + lane;
      if (expert < num_experts) logits[i] += partial[s * slice_stride + expert];
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

// Adds further slices to the first, a thread per sum.
__global__ void __launch_bounds__(kThreads)
    add_slices_kernel(float* partial, int64_t slice_size, int num_slices) {
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= slice_size) return;
  float sum = 0;
#pragma unroll 16
  for (int s = 0; s < num_slices; ++s) sum += partial[s * slice_size + i];
  partial[i] = sum;
}

// A warp per token, for many tokens, and for many experts or groups of them.
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
  add_up_logits(partial + token * args.num_experts, args.x.num_rows * args.num_experts, num_slices,
                args.num_experts, logits);
  choose_for_token(args, token, logits, correction, score[warp], choice[warp]);
}

// --- Few tokens: a block per token, four threads per expert, so that nothing is done one after the
// other: the place of an expert among the chosen is how many others are better. Loops that need not
// be unrolled are not: the kernel runs once through, and instructions have to be fetched too.

constexpr int64_t kMaxBlockTokens = 256;
constexpr int kBlockExperts = 128;
constexpr int kBlockWarps = kBlockExperts / kWarpLanes;
// Threads (e, y) are for expert e: each adds up a share of the slices, and compares with the keys
// of a share of the experts. In between they all do the same.
constexpr int kShares = kBlockWarps;

// How many of the 32 keys from 32 * `of_warp` on are larger than the thread's own, or equal and of
// a lower index.
__device__ __forceinline__ int count_better(const uint32_t (&keys)[kBlockExperts],
                                            int of_warp,
                                            uint32_t own) {
  const int expert = static_cast<int>(threadIdx.x);
  const int first = of_warp * kWarpLanes;
  int num_better = 0;
  if (first != expert / kWarpLanes * kWarpLanes) {
    // Equals of lower warps are better: larger than one less.
    const uint32_t limit = own - (first < expert ? 1 : 0);
#pragma unroll
    for (int j = 0; j < kWarpLanes; j += 4) {
      const uint4 four = *reinterpret_cast<const uint4*>(&keys[first + j]);
      num_better += (four.x > limit) + (four.y > limit) + (four.z > limit) + (four.w > limit);
    }
  } else {
#pragma unroll 8
    for (int j = 0; j < kWarpLanes; ++j) {
      num_better += keys[first + j] > own - (first + j < expert ? 1 : 0);
    }
  }
  return num_better;
}

// Requires num_experts <= 128 and one group.
__global__ void __launch_bounds__(kBlockExperts* kShares)
    choose_experts_by_block_kernel(RouterArgs args, const float* partial, int num_slices) {
  __shared__ __align__(16) uint32_t keys[kBlockExperts];
  __shared__ float scores[kBlockExperts];
  __shared__ int better[kShares][kBlockExperts];
  __shared__ float shares[kShares][kBlockExperts];
  __shared__ float chosen_scores[kWarpLanes];
  __shared__ uint32_t largest_of_warp[kBlockWarps];
  __shared__ float total_of_warp[kBlockWarps];
  const int64_t token = blockIdx.x;
  const int expert = static_cast<int>(threadIdx.x);
  const int warp = expert / kWarpLanes;
  const bool is_there = expert < args.num_experts;
  const float correction = args.correction != nullptr && is_there ? args.correction[expert] : 0.0f;
  const int64_t slice_stride = args.x.num_rows * args.num_experts;
  const float* const from = partial + token * args.num_experts + expert;
  let_next_kernel_start();
  wait_for_previous_kernels();

  float logit = 0;
  if (is_there) {
#pragma unroll 8
    for (int s = threadIdx.y; s < num_slices; s += kShares) logit += from[s * slice_stride];
  }
  const bool is_padding = args.num_valid != nullptr && token >= *args.num_valid;
  const bool is_first = threadIdx.y == 0;
  shares[threadIdx.y][expert] = logit;
  __syncthreads();
  logit = shares[0][expert];
#pragma unroll
  for (int y = 1; y < kShares; ++y) logit += shares[y][expert];
  if (is_there && is_first && args.logits.data != nullptr) {
    row_of<float>(args.logits, token)[expert] = logit;
  }

  float score = 0;
  if (args.scoring == RouterScoring::kSigmoid) {
    score = 1.0f / (1.0f + expf(-logit));
  } else {
    const uint32_t largest = __reduce_max_sync(kAllLanes, key_of(is_there ? logit : -INFINITY));
    if (expert % kWarpLanes == 0 && is_first) largest_of_warp[warp] = largest;
    __syncthreads();
    uint32_t largest_of_all = largest_of_warp[0];
#pragma unroll
    for (int w = 1; w < kBlockWarps; ++w) {
      largest_of_all = max(largest_of_all, largest_of_warp[w]);
    }
    const float value = is_there ? expf(logit - score_of(largest_of_all)) : 0.0f;
    const float sum = warp_sum(value);
    if (expert % kWarpLanes == 0 && is_first) total_of_warp[warp] = sum;
    __syncthreads();
    float total = total_of_warp[0];
#pragma unroll
    for (int w = 1; w < kBlockWarps; ++w) total += total_of_warp[w];
    score = value / total;
  }
  const uint32_t key = is_there ? key_of(score + correction) : kOut;
  if (is_first) {
    keys[expert] = key;
    scores[expert] = score;
  }
  __syncthreads();
  better[threadIdx.y][expert] = count_better(keys, static_cast<int>(threadIdx.y), key);
  __syncthreads();
  int rank = is_there ? 0 : kBlockExperts;
#pragma unroll
  for (int y = 0; y < kShares; ++y) rank += better[y][expert];
  if (args.forced == nullptr) {
    if (rank < args.top_k && is_first) {
      chosen_scores[rank] = score;
      args.experts[token * args.top_k + rank] = is_padding ? -1 : expert;
    }
  } else if (expert < args.top_k && is_first) {
    const int32_t forced = args.forced[token * args.top_k + expert];
    chosen_scores[expert] = forced >= 0 ? scores[forced] : 0.0f;
    args.experts[token * args.top_k + expert] = is_padding ? -1 : forced;
  }
  __syncthreads();
  if (expert < args.top_k && is_first) {
    float weight = chosen_scores[expert];
    if (args.normalise_top_k) {
      float sum = 0;
#pragma unroll 4
      for (int k = 0; k < args.top_k; ++k) sum += chosen_scores[k];
      if (args.scoring == RouterScoring::kSigmoid) sum += 1e-20f;
      weight /= sum;
    }
    args.weights[token * args.top_k + expert] = is_padding ? 0.0f : weight * args.scaling_factor;
  }
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

bool has_block_per_token(const RouterArgs& args) {
  return args.x.num_rows <= kMaxBlockTokens && args.num_experts <= kBlockExperts &&
         args.num_groups == 1;
}

void route(const RouterArgs& args, float* partial, cudaStream_t stream) {
  const RouterLogitsPlan how =
      plan_router_logits(args.x.num_rows, args.x.num_cols, args.num_experts);
  router_logits(args, how, partial, stream);
  if (has_block_per_token(args)) {
    launch(choose_experts_by_block_kernel,
           {.grid = dim3(static_cast<unsigned>(args.x.num_rows)),
            .block = dim3(kBlockExperts, kShares)},
           stream, args, partial, how.num_slices);
    return;
  }
  int num_slices = how.num_slices;
  if (num_slices > 2) {  // a warp would wait for one after the other
    const int64_t slice_size = args.x.num_rows * args.num_experts;
    launch(add_slices_kernel,
           {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(slice_size, kThreads))),
            .block = dim3(kThreads)},
           stream, partial, slice_size, num_slices);
    num_slices = 1;
  }
  if (args.num_experts <= 4 * kWarpLanes) {
    launch_by_warp<4>(args, partial, num_slices, stream);
  } else if (args.num_experts <= 16 * kWarpLanes) {
    launch_by_warp<16>(args, partial, num_slices, stream);
  } else {
    launch_by_warp<32>(args, partial, num_slices, stream);
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
  require_router(args);
  if (args.x.num_rows > 0) route(args, static_cast<float*>(workspace), stream);
}

int64_t bytes_moved(const RouterArgs& args) {
  const int64_t logits = args.logits.data == nullptr ? 0 : args.num_experts * 4;
  return args.num_experts * args.x.num_cols * 4 +
         args.x.num_rows * (args.x.num_cols * 4 + args.top_k * 8 + logits);
}

}  // namespace augur::cuda
