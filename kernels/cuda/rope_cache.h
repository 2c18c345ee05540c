// From the qkv projection to attention: norms of the heads, rotary positions, the cache.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// The contract is RopeAndCacheArgs's: qkv is f32 or bf16, q_out bf16, the cache as kv_layout.h
/// lays it out, with zeros in the columns that fill up a group. Requires head_dim <= 256, fewer
/// than 2^31 positions in the cache, kv_slots inside it (or -1) and positions inside the table.
/// Asynchronous on `stream`. Fast where head_dim is a multiple of 8 and, unless interleaved,
/// rotary_dim one of 16; any other size is right, and slower.
/// Memory-bound: reads qkv and writes as many bf16 values, once each.
void rope_and_cache(const RopeAndCacheArgs& args, cudaStream_t stream);
int64_t bytes_moved(const RopeAndCacheArgs& args);

}  // namespace augur::cuda
