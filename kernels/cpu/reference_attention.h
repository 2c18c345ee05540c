// Rotation, KV cache and attention of the reference backend. Contracts: kernels/ops.h.
//
// A block of the cache holds float32 keys [num_kv_heads, head_dim, block_size], so that one query
// meets many positions in a run, then values [num_kv_heads, block_size, head_dim]. In int8 it holds
// the float32 scales of the keys and of the values, [2, num_kv_heads, block_size], then both as
// int8, [2, num_kv_heads, block_size, head_dim]; attention widens some positions at a time.
#pragma once

#include <cstdint>

#include "kernels/cpu/reference_scratch.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

int64_t reference_kv_block_bytes(int block_size, int num_kv_heads, int head_dim, KvFormat format);
void reference_rope_and_cache(const RopeAndCacheArgs& args,
                              const ReferenceScratch& scratch,
                              WorkerPool& pool);
void reference_attention(const AttentionArgs& args,
                         const ReferenceScratch& scratch,
                         WorkerPool& pool);

}  // namespace augur::cpu
