// How keys and values lie in device memory.
//
// A block of `block_size` positions holds the keys of every KV head, then the values. The keys (or
// values) of one head are cut into groups of 64 columns, zero where the head ends earlier; a group
// is [block_size][64] bf16, position i's 128 bytes with 16-byte chunk j at chunk j ^ (i % 8). That
// is the 128-byte swizzle of mlp_layout.h: a group goes to shared memory as it is, by one bulk
// copy, and is read there without bank conflicts by ldmatrix and by wgmma.
#pragma once

#include <cstdint>

#include "kernels/cuda/mlp_layout.h"

namespace augur::cuda {

inline constexpr int kKvGroupCols = 64;

AUGUR_HOST_DEVICE constexpr int num_kv_groups(int head_dim) {
  return (head_dim + kKvGroupCols - 1) / kKvGroupCols;
}
/// Bytes of the keys (or the values) of one head in one block.
AUGUR_HOST_DEVICE constexpr int64_t kv_head_bytes(int block_size, int head_dim) {
  return int64_t{num_kv_groups(head_dim)} * block_size * kKvGroupCols * 2;
}
AUGUR_HOST_DEVICE constexpr int64_t kv_block_bytes(int block_size, int num_kv_heads, int head_dim) {
  return 2 * num_kv_heads * kv_head_bytes(block_size, head_dim);
}
/// Bytes from the start of a block to the keys of a head; its values are half a block later.
AUGUR_HOST_DEVICE constexpr int64_t kv_head_offset(int block_size, int head_dim, int kv_head) {
  return kv_head * kv_head_bytes(block_size, head_dim);
}
/// Bytes from the start of a head's keys to column `col` of the block's position `offset`.
AUGUR_HOST_DEVICE constexpr int64_t kv_value_offset(int block_size, int offset, int col) {
  const int chunk = (col % kKvGroupCols / 8) ^ (offset % 8);
  return (int64_t{col / kKvGroupCols} * block_size + offset) * 128 + chunk * 16 + col % 8 * 2;
}

}  // namespace augur::cuda
