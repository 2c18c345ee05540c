#include "kernels/cpu/norm_rope.h"

#include <algorithm>
#include <string>

#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/token_kernels.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

// Rows of one chunk: at most 32, so that threads rarely write positions of the same group of keys
// at once; fewer when there would not be four chunks a thread.
int64_t rows_per_chunk(int64_t num_rows, const WorkerPool& pool) {
  return std::clamp<int64_t>(num_rows / (4 * pool.num_threads()), 1, 32);
}

/// The scales of a group of positions kept in int8.
float* scales_of(std::byte* group, int64_t group_bytes) {
  return reinterpret_cast<float*>(group + group_bytes - kKvScaleBytes);
}

std::string shape(const Tensor& tensor) {
  return std::to_string(tensor.num_rows) + " x " + std::to_string(tensor.num_cols);
}

}  // namespace

void add_rms_norm(const AddRmsNormArgs& args, Isa isa, WorkerPool& pool) {
  const Tensor& hidden = args.hidden;
  const auto is_alike = [&](const Tensor& tensor, DType dtype) {
    return tensor.dtype == dtype && tensor.num_rows == hidden.num_rows &&
           tensor.num_cols == hidden.num_cols;
  };
  AUGUR_REQUIRE(hidden.dtype == DType::kF32, "hidden is float32");
  AUGUR_REQUIRE(is_alike(args.out, DType::kBF16),
                "out is bf16 like hidden, " + shape(hidden) + ", not " + shape(args.out));
  AUGUR_REQUIRE(args.delta.data == nullptr || is_alike(args.delta, DType::kF32),
                "delta is float32 like hidden, " + shape(hidden) + ", not " + shape(args.delta));
  AUGUR_REQUIRE(
      args.out_f32.data == nullptr || is_alike(args.out_f32, DType::kF32),
      "out_f32 is float32 like hidden, " + shape(hidden) + ", not " + shape(args.out_f32));
  if (hidden.num_rows == 0) return;
  AUGUR_REQUIRE(args.weight != nullptr && hidden.num_cols > 0, shape(hidden));

  const TokenKernels& kernels = token_kernels(isa);
  const int64_t chunk_rows = rows_per_chunk(hidden.num_rows, pool);
  pool.parallel_for((hidden.num_rows + chunk_rows - 1) / chunk_rows, [&](int64_t chunk, int) {
    const int64_t first = chunk * chunk_rows;
    NormRows rows = {};
    rows.num_rows = std::min(chunk_rows, hidden.num_rows - first);
    rows.num_cols = hidden.num_cols;
    rows.hidden = hidden.row<float>(first);
    rows.hidden_stride = hidden.row_stride;
    if (args.delta.data != nullptr) rows.delta = args.delta.row<float>(first);
    rows.delta_stride = args.delta.row_stride;
    rows.weight = args.weight;
    rows.eps = args.eps;
    rows.out = args.out.row<uint16_t>(first);
    rows.out_stride = args.out.row_stride;
    if (args.out_f32.data != nullptr) rows.out_f32 = args.out_f32.row<float>(first);
    rows.out_f32_stride = args.out_f32.row_stride;
    kernels.norm_rows(rows);
  });
}

void rope_and_cache(const RopeAndCacheArgs& args, Isa isa, WorkerPool& pool) {
  const KvCacheLayer& cache = args.cache;
  const KvLayout layout =
      kv_layout(cache.block_size, cache.num_kv_heads, cache.head_dim, cache.format);
  const int64_t num_tokens = args.qkv.num_rows;
  AUGUR_REQUIRE(args.num_heads > 0, std::to_string(args.num_heads));
  const int64_t q_cols = int64_t{args.num_heads} * cache.head_dim;
  AUGUR_REQUIRE(args.qkv.dtype == DType::kF32 &&
                    args.qkv.num_cols == q_cols + 2 * int64_t{cache.num_kv_heads} * cache.head_dim,
                "qkv is float32 [num_tokens, (num_heads + 2 num_kv_heads) * head_dim], not " +
                    shape(args.qkv));
  AUGUR_REQUIRE(args.q_out.dtype == DType::kBF16 && args.q_out.num_rows == num_tokens &&
                    args.q_out.num_cols == q_cols,
                "q_out is bf16 [num_tokens, num_heads * head_dim], not " + shape(args.q_out));
  AUGUR_REQUIRE(args.rope.rotary_dim >= 0 && args.rope.rotary_dim % 2 == 0 &&
                    args.rope.rotary_dim <= cache.head_dim,
                "rotary_dim is " + std::to_string(args.rope.rotary_dim) + " of head_dim " +
                    std::to_string(cache.head_dim));
  for (int64_t token = 0; token < num_tokens; ++token) {
    const int64_t slot = args.kv_slots[token];
    AUGUR_REQUIRE(slot >= 0 && slot / layout.block_size < cache.num_blocks,
                  "slot " + std::to_string(slot) + " of " + std::to_string(cache.num_blocks) +
                      " blocks of " + std::to_string(layout.block_size));
    AUGUR_REQUIRE(args.positions[token] >= 0, std::to_string(args.positions[token]));
  }

  const TokenKernels& kernels = token_kernels(isa);
  const int64_t chunk_rows = rows_per_chunk(num_tokens, pool);
  pool.parallel_for((num_tokens + chunk_rows - 1) / chunk_rows, [&](int64_t chunk, int) {
    RopeToken token = {};
    token.num_heads = args.num_heads;
    token.num_kv_heads = cache.num_kv_heads;
    token.head_dim = cache.head_dim;
    token.q_norm = args.q_norm;
    token.k_norm = args.k_norm;
    token.eps = args.norm_eps;
    token.rotary_dim = args.rope.rotary_dim;
    token.is_interleaved = args.rope.is_interleaved;
    token.format = cache.format;
    token.head_bytes = layout.head_bytes;
    const int64_t end = std::min((chunk + 1) * chunk_rows, num_tokens);
    for (int64_t row = chunk * chunk_rows; row < end; ++row) {
      const int64_t table_row = args.positions[row] * int64_t{args.rope.rotary_dim / 2};
      const int64_t slot = args.kv_slots[row] % layout.block_size;
      const int64_t slot_in_group = slot % kKvGroup;
      std::byte* block = cache.data + args.kv_slots[row] / layout.block_size * layout.block_bytes;
      std::byte* keys = block + slot / kKvGroup * layout.key_group_bytes;
      std::byte* values = block + layout.values_offset + slot / kKvGroup * layout.value_group_bytes;
      token.qkv = args.qkv.row<float>(row);
      token.q_out = args.q_out.row<uint16_t>(row);
      token.cos = args.rope.cos + table_row;
      token.sin = args.rope.sin + table_row;
      token.keys = keys + slot_in_group * (cache.format == KvFormat::kInt8 ? 1 : 4);
      token.values = values + slot_in_group / 2 * layout.value_row_bytes;
      token.value_parity = static_cast<int>(slot % 2);
      token.key_scale = scales_of(keys, layout.key_group_bytes) + slot_in_group;
      token.value_scale = scales_of(values, layout.value_group_bytes) + slot_in_group;
      kernels.rope_token(token);
    }
  });
}

}  // namespace augur::cpu
