// Where the CPU backends keep keys and values inside a block of the KV cache.
//
// A block holds, for each KV head in turn, its keys and then its values, all bf16:
//   keys    [block_size / 16][head_dim / 2][16 positions][2]     a pair is two dimensions
//   values  [block_size / 2][value_cols][2 positions]            a pair is two positions
// with value_cols = head_dim rounded up to 16. A row of 16 pairs is 64 bytes: one load whose
// lanes are positions (keys) or dimensions (values), which VDPBF16PS multiplies by one pair of
// the query or of the probabilities; so neither product needs a sum across lanes. It is also
// the order of AMX's second operand. The padding of values is never written nor read for output.
#pragma once

#include <cstdint>

namespace augur::cpu {

inline constexpr int kKvGroup = 16;  // positions of one load of keys

/// Sizes in bytes, for one geometry of the cache.
struct KvLayout {
  int64_t block_size = 0;
  int64_t key_group_bytes = 0;    // 16 positions of keys of one head
  int64_t value_group_bytes = 0;  // 16 positions of values of one head
  int64_t values_offset = 0;      // of the values behind the keys of the same head
  int64_t head_bytes = 0;
  int64_t block_bytes = 0;
};

/// Requires block_size to be a positive multiple of 16, at least one head, and head_dim even
/// and in [2, 512].
KvLayout kv_layout(int block_size, int num_kv_heads, int head_dim);

/// Bytes of one block: kv_layout(...).block_bytes.
int64_t kv_block_bytes_cpu(int block_size, int num_kv_heads, int head_dim);

}  // namespace augur::cpu
