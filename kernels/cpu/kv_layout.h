// Where the fast CPU backend keeps keys and values inside a block of the KV cache.
//
// A block holds, for each KV head in turn, its keys and then its values. In the native format all
// are bf16:
//   keys    [block_size / 16][head_dim / 2][16 positions][2]     a pair is two dimensions
//   values  [block_size / 2][value_cols][2 positions]            a pair is two positions
// with value_cols = head_dim rounded up to 16. A row of 16 pairs is 64 bytes: one load whose
// lanes are positions (keys) or dimensions (values), which VDPBF16PS multiplies by one pair of
// the query or of the probabilities; so neither product needs a sum across lanes. It is also
// the order of AMX's second operand. The padding of values is never written nor read for output.
//
// In int8 a row of 16 pairs is 32 bytes, the first values of the pairs and then the second ones,
// so that each half widens to 16 floats; 16 float32 scales follow each group of 16 positions:
//   keys    [block_size / 16]{[head_dim / 2][2][16 positions], [16 scales]}
//   values  [block_size / 16]{[8 pairs][value_cols / 16][2 positions][16 columns], [16 scales]}
// Attention multiplies the scores by the scales of the keys and the probabilities by those of the
// values, and the products run on the int8 values themselves, which bf16 holds exactly.
#pragma once

#include <cstdint>

#include "kernels/kv_format.h"

namespace augur::cpu {

inline constexpr int kKvGroup = 16;  // positions of one load of keys

/// Of the scales of a group: they end it.
inline constexpr int64_t kKvScaleBytes = kKvGroup * sizeof(float);

/// Sizes in bytes, for one geometry of the cache.
struct KvLayout {
  int64_t block_size = 0;
  int64_t key_group_bytes = 0;    // 16 positions of keys of one head, their scales included
  int64_t value_group_bytes = 0;  // 16 positions of values of one head, likewise
  int64_t value_row_bytes = 0;    // a pair of positions, all columns
  int64_t values_offset = 0;      // of the values behind the keys of the same head
  int64_t head_bytes = 0;
  int64_t block_bytes = 0;
};

/// Requires block_size to be a positive multiple of 16, at least one head, and head_dim even
/// and in [2, 512].
KvLayout kv_layout(int block_size, int num_kv_heads, int head_dim, KvFormat format);

/// Bytes of one block: kv_layout(...).block_bytes.
int64_t kv_block_bytes_cpu(int block_size, int num_kv_heads, int head_dim, KvFormat format);

}  // namespace augur::cpu
