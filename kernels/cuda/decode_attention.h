// Attention of decode steps: one query row per sequence over its paged keys and values.
//
// The keys of a sequence are cut into chunks, worked on by different thread blocks; the block that
// ends last merges them, in their order. How many chunks there are (num_chunks) depends on the
// sequence's own visible positions, on num_seqs, on the shape and on the device's multiprocessors,
// never on the other sequences or on max_context, and so do the bits of its row. Which block takes
// which chunks is settled on the device from all context lengths, and changes no bits: one recorded
// launch serves any lengths up to max_context.
//
// Memory-bound: every visible key and value is read once, see bytes_moved. Sources: Dao et al.
// 2022, arXiv:2205.14135 (online softmax); split keys: Dao et al. 2023, "Flash-Decoding";
// attention sinks as an extra logit: OpenAI 2025, gpt-oss model card, section 2.3.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// The kernels that decode_attention chooses from; tests and benchmarks name one.
enum class DecodeAttentionPath : uint8_t {
  kAuto,      // kBulk where there is one: on an H100 from 3 % slower to 28 % faster (short windows)
  kPortable,  // 16-byte asynchronous copies, one block to a multiprocessor: compute capability 8.0
  kBulk,      // bulk copies, two blocks: 9.0
};

/// `attention` holds bf16 q and out with any row_stride divisible by 8, and a batch in which row s
/// is sequence s (num_tokens == num_seqs; query_start is not read). A context length of 0 gives a
/// row of zeros.
struct DecodeAttentionArgs {
  AttentionArgs attention;
  /// No context length is larger.
  int64_t max_context = 0;
  /// 0, or how many of the last positions a row sees, its own included.
  int window = 0;
  /// [num_heads] f32, or null: one more logit per head that takes its share of the softmax and
  /// brings no value.
  const float* sinks = nullptr;
  /// decode_attention_workspace_bytes() of device memory, 256-byte aligned. The first
  /// kDecodeAttentionCounterBytes are zero before the first call that uses it; every call leaves
  /// them so.
  std::byte* workspace = nullptr;
  int64_t workspace_bytes = 0;
  DecodeAttentionPath path = DecodeAttentionPath::kAuto;
};

inline constexpr int64_t kDecodeAttentionCounterBytes = int64_t{256} << 10;

/// Enough for calls of up to max_seqs sequences with contexts up to max_context on this device.
int64_t decode_attention_workspace_bytes(
    int64_t max_seqs, int num_heads, int num_kv_heads, int head_dim, int64_t max_context);

/// Requires head_dim a multiple of 8 up to 256, block_size a multiple of 16, scale > 0, and
/// num_seqs * num_kv_heads * ceil(group / 16) < 65,536. Asynchronous on `stream`.
void decode_attention(const DecodeAttentionArgs& args, cudaStream_t stream);

/// Bytes of keys, values, queries and results when the sequences hold `num_positions` together
/// (with a window: visible ones).
int64_t bytes_moved(const DecodeAttentionArgs& args, int64_t num_positions);

}  // namespace augur::cuda
