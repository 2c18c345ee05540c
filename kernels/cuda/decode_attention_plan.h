// How a decode step's attention is cut into chunks, and what its kernels are given.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/kv_layout.h"

namespace augur::cuda {

/// Chunks are whole tiles of this many positions, counted from the first visible one rounded down
/// to kKvPieceRows.
inline constexpr int kDecodeTileRows = 64;
/// Positions that always lie in one block, since block sizes are multiples of it.
inline constexpr int kKvPieceRows = 16;

/// Decides how many chunks the tiles of one (sequence, KV head) make. Shares of the device are
/// reckoned as if all sequences were as long.
struct SplitRule {
  int spread = 1;      // chunks that would give every thread block one
  int balance = 1;     // chunks that would give every thread block kItemsForBalance
  int fair_tiles = 1;  // chunks that are merely to balance the blocks' work are this long
  int max_chunks = 1;  // what the workspace holds
};

/// So many items of a block even out that some are shorter and some blocks slower.
inline constexpr int kItemsForBalance = 4;
/// Of a head of 128 columns, 1,024 positions: 22 us of one of 132 blocks' share of the memory's
/// bandwidth, 20 times what a chunk's end takes. No chunk is longer than twice that.
inline constexpr int kFairChunkBytes = 512 << 10;
/// Below this many tiles merging takes longer than what chunks save.
inline constexpr int kMinSplitTiles = 5;
/// Few sequences are spread over the device in chunks no shorter than this, up to as many as one
/// block merges in a round or two of loads.
inline constexpr int kMinSpreadTiles = 2;
inline constexpr int kMostSpreadChunks = 16;
/// Of one unit, whatever its length: one block merges them.
inline constexpr int kMostChunks = 64;

AUGUR_HOST_DEVICE constexpr int num_chunks(int num_tiles, const SplitRule& rule) {
  if (num_tiles < kMinSplitTiles) return num_tiles > 0 ? 1 : 0;
  const auto smaller = [](int a, int b) { return a < b ? a : b; };
  const auto larger = [](int a, int b) { return a < b ? b : a; };
  const auto ceil_div = [](int a, int b) { return (a + b - 1) / b; };
  const int to_spread =
      smaller(smaller(rule.spread, kMostSpreadChunks), ceil_div(num_tiles, kMinSpreadTiles));
  const int to_balance = smaller(rule.balance, ceil_div(num_tiles, rule.fair_tiles));
  const int at_least = ceil_div(num_tiles, 2 * rule.fair_tiles);
  return smaller(larger(larger(to_spread, to_balance), at_least), rule.max_chunks);
}

/// Rows of the matrix product: query heads of one KV head that a thread block handles together.
inline constexpr int kMaxHeadRows = 16;

/// Arguments of the kernels. A unit is (KV head, up to kMaxHeadRows of its query heads).
struct DecodeAttentionParams {
  const __nv_bfloat16* q;
  int64_t q_stride;
  __nv_bfloat16* out;
  int64_t out_stride;
  const std::byte* cache;
  int64_t block_bytes;
  int64_t head_bytes;
  int block_size;
  int group;  // query heads of a KV head
  int head_dim;
  int num_heads;
  int units_per_kv_head;
  int rows_per_unit;  // the smaller of group and kMaxHeadRows
  int units_per_seq;
  int num_seqs;
  const int32_t* context_len;
  const int32_t* block_table;
  int64_t block_table_stride;
  float scale_log2;  // scale * log2(e): the kernels work in powers of two
  int window;
  const float* sinks;
  SplitRule rule;
  bool draws_items;       // otherwise blocks take items in steps of the grid
  int num_stages;         // of each warp's ring
  int32_t* num_drawn;     // items drawn so far, beyond the first of every block
  int32_t* num_arrived;   // [num_seqs, units_per_seq]: chunks that are done
  float2* partial_sums;   // [num_seqs, units_per_seq, max_chunks, rows_per_unit]: maximum, sum
  float* partial_values;  // the same times head_dim up to whole groups, before dividing by the sum
};

/// Launches the kernel on as many thread blocks as the device runs at once, or most_items if those
/// are fewer. num_stages is filled in here.
void portable_decode_attention(DecodeAttentionParams params,
                               int64_t most_items,
                               cudaStream_t stream);
void sm90_decode_attention(DecodeAttentionParams params, int64_t most_items, cudaStream_t stream);

}  // namespace augur::cuda
