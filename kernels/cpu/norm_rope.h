// Normalisation, and the steps between the qkv projection and attention. The args and their
// shapes: kernels/ops.h. Activations are bf16, arithmetic is float32.
#pragma once

#include "kernels/cpu/isa.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// Memory-bound: reads 8 B per value (4 without delta) and writes 6 (2, and 4 with out_f32).
void add_rms_norm(const AddRmsNormArgs& args, Isa isa, WorkerPool& pool);

/// One pass over qkv. The cache's layout is kv_layout.h's. Requires kv_slots inside the cache.
void rope_and_cache(const RopeAndCacheArgs& args, Isa isa, WorkerPool& pool);

}  // namespace augur::cpu
