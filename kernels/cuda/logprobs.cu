#include "kernels/cuda/logprobs.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_best.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

struct Params {
  const float* logits;
  int64_t row_stride;
  const int32_t* targets;
  float* target_logprob;
  int32_t* top_ids;
  float* top_logprobs;
  const int32_t* sampled_ids;
  int vocab_size;
  int top_n;
};

// What the blocks of a row tell each other after the first pass.
struct Part {
  SliceBounds bounds;
  double sum;  // of exp(x - bounds.best's logit)
};

struct Listed {
  int num_listed;
};

template <int kBlocks>
struct Shared {
  Part parts[kBlocks];
  double infinite_parts[kBlocks];  // how many logits are +infinity
  Listed listed_parts[kBlocks];
  Key best_parts[2][kBlocks];
  double warp_sums[2][kRowWarps];
  Key warp_keys[kRowWarps];
  int num_listed;  // by this block
  SliceBounds bounds;
  KeyList<kBlocks> list;
  GroupScratch groups;
};

// What turns a logit of one row into its log-probability.
struct RowNorm {
  float largest;
  double log_sum;

  __device__ float logprob(float logit) const {
    // Also for NaN and where `largest` is infinite, and the difference would be NaN.
    if (!(logit > kMinusInfinity)) return kMinusInfinity;
    if (logit == largest) return static_cast<float>(-log_sum);
    return static_cast<float>((static_cast<double>(logit) - largest) - log_sum);
  }
};

// Tokens of +infinity share the probability.
template <int kBlocks>
__device__ double count_infinite(const RowSlice& slice, Shared<kBlocks>& shared) {
  double count = 0;
  for (int i = static_cast<int>(threadIdx.x); i < slice.count; i += kRowThreads) {
    count += slice.logits[i] == -kMinusInfinity ? 1 : 0;
  }
  count = block_sum(count, shared.warp_sums[1]);
  exchange<kBlocks>(shared.infinite_parts, count);
  count = 0;
  for (int i = 0; i < kBlocks; ++i) count += shared.infinite_parts[i];
  return count;
}

// Lists the tokens that reach `bound`. Only what threads whose best does have read is looked at
// again.
template <int kBlocks>
__device__ void list_from(Key bound,
                          Key thread_best,
                          const RowSlice& slice,
                          Shared<kBlocks>& shared) {
  visit_fours(slice, thread_best >= bound, logit_of(bound), [&](const float4& x, int i) {
    const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const Key key = key_of(values[j], slice.first_id + i + j);
      if (key < bound || i + j >= slice.count) continue;
      list_token(shared.list, shared.num_listed, key);
    }
  });
  __syncthreads();
  exchange<kBlocks>(shared.listed_parts, Listed{shared.num_listed});
}

// The best tokens one after the other: for rows where too many reach the bound.
template <int kBlocks>
__device__ void find_top_in_rounds(const Params& params,
                                   const RowSlice& slice,
                                   const RowNorm& norm,
                                   int64_t row,
                                   Shared<kBlocks>& shared) {
  Key previous = kAboveAll;
  for (int round = 0; round < params.top_n; ++round) {
    Key best = 0;
    for (int i = static_cast<int>(threadIdx.x) * 4; i < slice.count; i += kRowThreads * 4) {
      const float4 x = slice.four(i);
      const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const Key key = key_of(values[j], slice.first_id + i + j);
        if (key < previous && key > best && i + j < slice.count) best = key;
      }
    }
    best = block_max(best, shared.warp_keys);
    Key* const parts = shared.best_parts[round % 2];
    exchange<kBlocks>(parts, best);
    for (int i = 0; i < kBlocks; ++i) best = max(best, parts[i]);
    previous = best;
    if (block_rank<kBlocks>() == 0 && threadIdx.x == 0) {
      params.top_ids[row * params.top_n + round] = id_of(best);
      params.top_logprobs[row * params.top_n + round] = norm.logprob(logit_of(best));
    }
  }
}

template <int kBlocks>
__global__ __launch_bounds__(kRowThreads, 3) void logprobs_kernel(Params params) {
  __shared__ Shared<kBlocks> shared;
  wait_for_previous_kernels();
  let_next_kernel_start();
  if (threadIdx.x == 0) shared.num_listed = 0;
  row_arrive<kBlocks>();
  const int64_t row = blockIdx.x / kBlocks;
  const float* const logits = params.logits + row * params.row_stride;
  const bool is_first = block_rank<kBlocks>() == 0;
  const bool wants_list = params.top_n > 0;
  const RowSlice slice = slice_in_place<kBlocks>(logits, params.vocab_size);

  // The largest logit, a bound that at least top_n tokens reach, and the sum of exponentials.
  constexpr float kLog2E = 1.44269502f;
  const Glance seen = glance_all<true>(slice, kLog2E);
  if (wants_list) {
    find_bounds(seen.best, params.top_n, kBlocks, shared.groups, shared.bounds);
  } else {
    const Key best = block_max(seen.best, shared.warp_keys);
    if (threadIdx.x == 0) shared.bounds = {best, 0, 0};
  }
  __syncthreads();
  double sum =
      seen.sum * exp2_of_difference(logit_of(seen.best), logit_of(shared.bounds.best), kLog2E);
  sum = block_sum(sum, shared.warp_sums[0]);
  row_wait<kBlocks>();  // all blocks have begun
  exchange<kBlocks>(shared.parts, Part{shared.bounds, sum});
  Key best = 0;
  for (int i = 0; i < kBlocks; ++i) best = max(best, shared.parts[i].bounds.best);
  const float largest = logit_of(best);
  sum = 0;
  for (int i = 0; i < kBlocks; ++i) {
    const float block_largest = logit_of(shared.parts[i].bounds.best);
    sum += shared.parts[i].sum * exp_not_positive(block_largest - largest);
  }
  if (largest == -kMinusInfinity) sum = count_infinite<kBlocks>(slice, shared);
  const RowNorm norm = {largest, log(sum)};

  if (is_first && threadIdx.x == 0 && params.targets != nullptr) {
    const int wanted = params.targets[row];
    const int target =
        wanted == -1 && params.sampled_ids != nullptr ? params.sampled_ids[row] : wanted;
    params.target_logprob[row] = target == -1 ? 0.0f
                                 : target < 0 || target >= params.vocab_size
                                     ? __uint_as_float(0x7FC00000u)
                                     : norm.logprob(logits[target]);
  }
  if (!wants_list) return;
  list_from<kBlocks>(row_bound<kBlocks>(shared.parts), seen.best, slice, shared);
  if (!is_whole<kBlocks>(shared.listed_parts)) {
    find_top_in_rounds(params, slice, norm, row, shared);
  } else if (is_first) {
    sort_list(shared.list, shared.listed_parts);
    __syncthreads();
    const int i = static_cast<int>(threadIdx.x);
    if (i < params.top_n) {
      const Key key = shared.list.sorted[i];
      params.top_ids[row * params.top_n + i] = id_of(key);
      params.top_logprobs[row * params.top_n + i] = norm.logprob(logit_of(key));
    }
  }
}

template <int kBlocks>
void launch_logprobs(const Params& params, int64_t num_rows, cudaStream_t stream) {
  launch(logprobs_kernel<kBlocks>,
         {.grid = dim3(static_cast<unsigned>(num_rows * kBlocks)),
          .block = dim3(kRowThreads),
          .cluster_size = kBlocks},
         stream, params);
}

}  // namespace

void logprobs(const LogprobsArgs& args, cudaStream_t stream, RowBlocks blocks) {
  AUGUR_NVTX_RANGE("logprobs");
  const Tensor& logits = args.logits;
  const int64_t vocab_size = logits.num_cols;
  if (logits.num_rows == 0) return;
  AUGUR_REQUIRE(logits.dtype == DType::kF32 && logits.data != nullptr, "logits must be float32");
  AUGUR_REQUIRE(vocab_size >= 1 && vocab_size <= 1 << 30, std::to_string(vocab_size));
  AUGUR_REQUIRE(logits.num_rows <= 1 << 24, std::to_string(logits.num_rows));
  AUGUR_REQUIRE(args.top_n >= 0 && args.top_n <= std::min<int64_t>(vocab_size, kMaxTopLogprobs),
                std::to_string(args.top_n));
  AUGUR_REQUIRE((args.targets == nullptr) == (args.target_logprob == nullptr),
                "targets and target_logprob go together");
  AUGUR_REQUIRE(args.top_n == 0 || (args.top_ids != nullptr && args.top_logprobs != nullptr),
                "top_n without room for its results");
  const Params params = {logits.row<float>(0),
                         logits.row_stride,
                         args.targets,
                         args.target_logprob,
                         args.top_ids,
                         args.top_logprobs,
                         args.sampled_ids,
                         static_cast<int>(vocab_size),
                         args.top_n};
  if (blocks == RowBlocks::kFastest && device_traits().is_hopper()) {
    launch_logprobs<kClusterBlocks>(params, logits.num_rows, stream);
  } else {
    launch_logprobs<1>(params, logits.num_rows, stream);
  }
}

int64_t bytes_moved(const LogprobsArgs& args) {
  const int64_t targets = args.targets == nullptr ? 0 : 8;
  return args.logits.num_rows * (args.logits.num_cols * 4 + targets + int64_t{args.top_n} * 8);
}

}  // namespace augur::cuda
