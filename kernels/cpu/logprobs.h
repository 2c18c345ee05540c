// Log-probabilities for the CPU backends. See LogprobsArgs in kernels/ops.h.
//
// A log-probability is (x - max) - log(sum of exp(x - max)): exponentials of
// kernels/cpu/row_math.h, sums of 512 in float32 and the rest in double; the absolute error is
// below 1e-6. A logit that is NaN counts as -infinity. Logits of +infinity share the whole
// probability. In a row without a logit above -infinity every log-probability is -infinity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// Bytes of scratch that logprobs() needs for any top_n.
int64_t logprobs_scratch_bytes(int64_t vocab_size, int num_threads);

/// `scratch`: at least logprobs_scratch_bytes(vocab, pool.num_threads()), 64-byte aligned; its
/// contents do not matter.
/// Requires targets in [-1, vocab) (the log-probability of -1 is written as 0), 0 <= top_n <=
/// vocab. `targets` may be null when target_logprob is.
void logprobs(const LogprobsArgs& args, WorkerPool& pool, std::span<std::byte> scratch);

}  // namespace augur::cpu
