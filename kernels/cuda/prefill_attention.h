// Causal grouped-query attention of many query rows over the paged cache.
//
// Work is cut into tiles: some query rows of one sequence and one KV head (a token's heads of that
// KV head are neighbouring rows, so that a chunk of few tokens still fills a tile), which walk the
// positions they see from the last to the first. How many tiles there are and which is whose is
// found on the device, the longest first; only num_seqs, num_tokens and the heads shape the launch.
//
// Compute-bound beyond some hundred rows: prefill_attention_flops over the peak of the tensor
// cores. Sources: Dao 2023, arXiv:2307.08691 (tiles, online softmax); Shah et al. 2024,
// arXiv:2407.08608 (warpgroups that take turns at the tensor cores, softmax under the products);
// Milakov and Gimelshein 2018, arXiv:1805.02867 (online softmax).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// `attention` is as in kernels/ops.h: bf16 q and out, the cache as in kv_layout.h, any mix of
/// sequences, of which none needs to be in its first chunk. Rows past the last sequence are not
/// written.
struct PrefillAttentionArgs {
  AttentionArgs attention;
  /// 0, or how many positions a row sees: the last ones up to its own.
  int window = 0;
  /// [num_heads] f32, or null: a logit per head that takes its share of the softmax and has no
  /// value.
  const float* sinks = nullptr;
};

/// Asynchronous on `stream`; needs no workspace. Requires head_dim to be a multiple of 8 up to 256,
/// scale > 0, the rows of q and out 16-byte aligned, block_size a multiple of 16.
/// Softmax in float32 by exp2, its weights rounded to bf16.
void prefill_attention(const PrefillAttentionArgs& args, cudaStream_t stream);

/// What it takes from compute capability 8.0 on, and what it takes on Hopper instead.
void mma_prefill_attention(const PrefillAttentionArgs& args, cudaStream_t stream);
void sm90_prefill_attention(const PrefillAttentionArgs& args, cudaStream_t stream);

/// Floating-point operations of one sequence: two products of 2 * head_dim each for every pair of a
/// row and a position it sees.
double prefill_attention_flops(
    int num_heads, int head_dim, int64_t num_rows, int64_t context_len, int window = 0);

}  // namespace augur::cuda
