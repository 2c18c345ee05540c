// The inner kernels of normalisation, rotation, attention and routing: one table of functions per
// instruction set, each compiled in a unit of its own with its own flags.
//
// Everything here is plain numbers and pointers: a unit compiled for wide registers must not emit
// inline functions that other units share, or the linker could hand its copy to a machine that
// cannot run it. The functions that callers use (norm_rope.h, attention.h, router.h) check their
// arguments, divide the work and call through the table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/kv_format.h"

namespace augur::cpu {

inline constexpr int kMaxHeadDim = 512;
inline constexpr int kMaxRouterGroups = 64;
/// Query rows that share one pass over the keys and values.
inline constexpr int kAttentionRows = 16;
/// Positions per step of the online softmax, and per partial result. Both are counted from
/// position 0 of the sequence, so the order of operations depends on a row's position alone.
inline constexpr int kAttentionChunk = 128;
inline constexpr int kAttentionSplit = 512;

/// Rows of hidden += delta; out = hidden / rms * weight. Strides count elements.
struct NormRows {
  float* hidden;
  int64_t hidden_stride;
  const float* delta;  // or null
  int64_t delta_stride;
  const float* weight;
  float eps;
  int64_t num_cols;
  uint16_t* out;  // bf16
  int64_t out_stride;
  float* out_f32;  // or null
  int64_t out_f32_stride;
  int64_t num_rows;
};

/// The heads of one token.
struct RopeToken {
  const float* qkv;
  uint16_t* q_out;  // bf16
  int num_heads;
  int num_kv_heads;
  int head_dim;
  const float* q_norm;  // or null
  const float* k_norm;  // or null
  float eps;
  const float* cos;  // of the token's position
  const float* sin;
  int rotary_dim;
  bool is_interleaved;
  // Where head 0 of the token goes: its lane of the key group, its row of the value pairs.
  KvFormat format;
  std::byte* keys;
  std::byte* values;
  int value_parity;  // which of its pair of positions the token is
  float* key_scale;  // of int8
  float* value_scale;
  int64_t head_bytes;
};

/// Up to kAttentionRows query rows of one sequence and one KV head, against the positions of some
/// splits. Row r is head (first_row + r) % group of token (first_row + r) / group.
struct AttentionTile {
  const uint16_t* q;  // bf16, of the sequence's first token and the group's first head
  int64_t q_stride;
  uint16_t* out;  // bf16, likewise
  int64_t out_stride;
  int group;  // query heads per KV head
  int64_t first_row;
  int num_rows;
  int64_t first_position;  // of the sequence's first token
  float scale_log2e;       // the scale of the scores times log2(e)
  KvFormat format;
  const std::byte* cache;  // block 0, this KV head
  int64_t block_bytes;
  int64_t block_size;
  int64_t key_group_bytes;
  int64_t value_group_bytes;
  int64_t values_offset;
  int head_dim;
  const int32_t* block_table;
  int64_t first_split;
  int64_t num_splits;
  /// Null: fold all splits and write `out`. Otherwise [num_splits][split_rows]
  /// [partial_row_floats(head_dim)]: written by attend, read by fold_splits.
  float* partials;
  int64_t split_rows;  // at least num_rows
};

/// A partial result: the values, then the sum of the weights and their exponent's maximum.
constexpr int64_t partial_row_floats(int head_dim) {
  return (head_dim + 15) / 16 * 16 + 16;
}

/// Logits of `num_tokens` tokens for `num_experts` experts.
struct RouterTile {
  const float* x;
  int64_t x_stride;
  const float* weight;  // of the first of the experts
  int64_t hidden_size;
  int num_tokens;
  int num_experts;
  float* logits;
  int64_t logits_stride;
};

/// The choice of one token.
struct RouterChoice {
  const float* logits;      // [num_experts]
  const float* correction;  // or null
  bool is_sigmoid;
  int num_experts;
  int top_k;
  int num_groups;
  int top_groups;
  bool normalise_top_k;
  float scaling_factor;
  const int32_t* forced;  // [top_k], or null: the experts to take
  float* scores;          // scratch, num_experts rounded up to 16 each
  float* choice;
  int32_t* experts;
  float* weights;
};

struct TokenKernels {
  void (*norm_rows)(const NormRows&);
  void (*rope_token)(const RopeToken&);
  void (*attend)(const AttentionTile&);
  /// Folds the partial results of every split of the tile, in order, and writes `out`.
  void (*fold_splits)(const AttentionTile&);
  void (*router_logits)(const RouterTile&);
  void (*router_choose)(const RouterChoice&);
  /// 2^x of `num_values` values as attention computes it, for tests of its error.
  void (*exp2_values)(const float* x, int64_t num_values, float* out);
};

extern const TokenKernels kTokenKernelsPortable;
extern const TokenKernels kTokenKernelsAvx2;
extern const TokenKernels kTokenKernelsAvx512;

/// The table of `isa`. AMX machines use the AVX-512 one. Requires has_isa(isa).
const TokenKernels& token_kernels(Isa isa);

}  // namespace augur::cpu
