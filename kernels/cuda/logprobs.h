// Log-probabilities on the device. See LogprobsArgs in kernels/ops.h; pointers are device memory.
//
// What kernels/cpu/logprobs.h says of NaN and infinities holds here too, and results agree with it
// to 2e-6: exponentials and a thread's sum of them in float32, relative to the thread's largest
// logit as it goes, the rest in double, in an order that depends on the vocabulary size alone.
// Source of the one-pass sum: Milakov and Gimelshein 2018, arXiv:1805.02867.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

inline constexpr int kMaxTopLogprobs = 64;

/// How many blocks share a row: the fastest for this device, or one, which works everywhere.
enum class RowBlocks { kFastest, kOne };

/// Asynchronous on `stream`; needs no scratch.
/// Requires 0 <= top_n <= min(vocab, kMaxTopLogprobs), targets in [-1, vocab) (the log-probability
/// of -1 without sampled_ids is written as 0; targets are not read on the host, so one outside
/// gives NaN), vocab <= 2^30. `targets` may be null when target_logprob is. Memory-bound: reads
/// each logit once; see bytes_moved.
void logprobs(const LogprobsArgs& args,
              cudaStream_t stream,
              RowBlocks blocks = RowBlocks::kFastest);

int64_t bytes_moved(const LogprobsArgs& args);

}  // namespace augur::cuda
