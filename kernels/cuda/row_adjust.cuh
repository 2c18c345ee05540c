// Biases and penalties of one row on the device.
#pragma once

#include "kernels/cuda/row_slice.cuh"
#include "kernels/cuda/sample_kernels.h"

namespace augur::cuda {

/// Tokens whose occurrences are counted in one walk of a list.
inline constexpr int kCountedAtOnce = 4096;

// Calls visit(id) for ids[first, end), shared out over the threads.
template <typename Visit>
__device__ __forceinline__ void visit_ids(const int32_t* ids,
                                          int first,
                                          int end,
                                          const Visit& visit) {
  constexpr int kAtOnce = 4;  // loads in flight
  for (int start = first + static_cast<int>(threadIdx.x); start < end;
       start += kAtOnce * kRowThreads) {
    int32_t some[kAtOnce];
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      const int i = start + a * kRowThreads;
      some[a] = i < end ? ids[i] : -1;
    }
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (some[a] >= 0) visit(some[a]);
    }
  }
}

// Changes a slice's logits by the row's biases and penalties, rounded as in kernels/cpu/sampler.cc.
// `biases`: where the row's lists begin. `counts`: kCountedAtOnce integers of shared memory.
__device__ __forceinline__ void adjust_slice(const RowPlan& plan,
                                             const int32_t* biases,
                                             int slice_first_id,
                                             int slice_count,
                                             float* slice_logits,
                                             int* counts) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < plan.num_biases; i += kRowThreads) {
    const int id = biases[2 * i];
    if (i > 0 && biases[2 * i - 2] == id) continue;  // the first of a token's adds them all
    const int at = id - slice_first_id;
    if (at < 0 || at >= slice_count) continue;
    float logit = slice_logits[at];
    for (int j = i; j < plan.num_biases && biases[2 * j] == id; ++j) {
      logit = __fadd_rn(logit, __int_as_float(biases[2 * j + 1]));
    }
    slice_logits[at] = logit;
  }
  __syncthreads();
  const int32_t* const prompt_ids = biases + 2 * plan.num_biases;
  const int num_history = plan.num_prompt_ids + plan.num_output_ids;
  if (num_history == 0) return;
  const bool penalises_repetition = plan.repetition_penalty != 1;
  const bool counts_output = plan.presence_penalty != 0 || plan.frequency_penalty != 0;
  for (int start = 0; start < slice_count; start += kCountedAtOnce) {
    const int num_counted = min(kCountedAtOnce, slice_count - start);
    float* const logits = slice_logits + start;
    const int first_id = slice_first_id + start;
    const auto clear = [&] {
      for (int i = thread; i < num_counted; i += kRowThreads) counts[i] = 0;
      __syncthreads();
    };
    if (penalises_repetition) {
      clear();
      visit_ids(prompt_ids, 0, num_history, [&](int id) {  // the output follows the prompt
        const int at = id - first_id;
        if (at < 0 || at >= num_counted || atomicAdd(&counts[at], 1) > 0) return;
        const float logit = logits[at];
        logits[at] = logit > 0 ? __fdiv_rn(logit, plan.repetition_penalty)
                               : __fmul_rn(logit, plan.repetition_penalty);
      });
      __syncthreads();
    }
    if (!counts_output) continue;
    clear();
    visit_ids(prompt_ids, plan.num_prompt_ids, num_history, [&](int id) {
      const int at = id - first_id;
      if (at >= 0 && at < num_counted) atomicAdd(&counts[at], 1);
    });
    __syncthreads();
    for (int i = thread; i < num_counted; i += kRowThreads) {
      if (counts[i] == 0) continue;
      const auto count = static_cast<float>(counts[i]);
      logits[i] = __fsub_rn(
          logits[i], __fadd_rn(plan.presence_penalty, __fmul_rn(plan.frequency_penalty, count)));
    }
    __syncthreads();
  }
}

// For one thread: the lowest id that no bias forbids.
__device__ __forceinline__ int lowest_allowed(const RowPlan& plan,
                                              const int32_t* biases,
                                              int vocab_size) {
  int id = 0;
  for (int i = 0; i < plan.num_biases; ++i) {
    if (__int_as_float(biases[2 * i + 1]) != kMinusInfinity || biases[2 * i] < id) continue;
    if (biases[2 * i] > id) break;
    ++id;
  }
  return id < vocab_size ? id : 0;
}

}  // namespace augur::cuda
