// Drawing tokens for the CPU backends. See kernels/sampling.h for the settings.
//
// What the settings leave open:
// - A logit that is NaN counts as -infinity. A token whose logit is -infinity after bias and
//   penalties is never drawn while another can be. A row where none can be (a broken model) gives
//   the lowest id that logit_bias does not forbid, or 0 when it forbids all.
// - Temperature 0 still heeds logit_bias and the penalties: of the logits they leave, the largest.
// - Several biases of one token add up. Each token is penalised for repetition once, whether it
//   is in the prompt, the output or both; the frequency penalty counts every occurrence.
// - min_p, top_k and top_p each keep the first so many tokens by falling logit, ties to the lower
//   id, at least one. top_p counts probabilities among what min_p and top_k kept.
// - The draw walks the kept tokens by rising id until their probability exceeds a uniform number
//   from Philox4x32-10 (kernels/cpu/philox.h) with the seed as its key and draw_idx as its counter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/worker_pool.h"
#include "kernels/sampling.h"

namespace augur::cpu {

/// Bytes of scratch that sample() needs.
int64_t sample_scratch_bytes(int64_t vocab_size, int num_threads);

/// Draws one token per row; rows are shared out over the pool.
/// `scratch`: at least sample_scratch_bytes(vocab, pool.num_threads()), 64-byte aligned; its
/// contents do not matter. Work per row: O(vocab + history), no sort of the vocabulary.
/// Requires rows.size() == logits.num_rows, vocab >= 1, settings in the ranges of SamplingRow
/// (temperature finite), and token ids of biases and read histories in [0, vocab).
void sample(const SampleArgs& args, WorkerPool& pool, std::span<std::byte> scratch);

}  // namespace augur::cpu
