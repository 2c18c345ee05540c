// Attention over the paged cache, for prefill and decode alike. The args: kernels/ops.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// Bytes of scratch that attention needs for steps within `limits`.
int64_t attention_scratch_bytes(const StepLimits& limits, Isa isa, int num_threads);

/// Work is shared out as tiles of query rows that use the same keys and values; a tile whose
/// context is long for the number of threads is split along the context, at places fixed by
/// position, so the result is the same for any number of threads.
/// `scratch`: attention_scratch_bytes() for limits that hold this batch, 64-byte aligned.
/// Requires scale > 0 and no more sequences than rows. Scores that overflow float32 make the row
/// NaN. Prefill is compute-bound, 4 head_dim operations per query head and position seen; decode
/// reads the context's keys and values once.
void attention(const AttentionArgs& args, Isa isa, WorkerPool& pool, std::byte* scratch);

}  // namespace augur::cpu
