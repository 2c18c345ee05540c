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

/// Decides how many chunks the tiles of one (sequence, KV head) make.
struct SplitRule {
  int spread = 1;      // chunks that would occupy the device when all sequences are as long
  int max_chunks = 1;  // what the workspace holds
  int scale = 1;       // thread blocks that share a chunk: it may be so much longer
};

/// The longest chunk unless max_chunks says otherwise: 1,024 positions even out contexts of
/// different lengths, and their partial result is under 1 % of their keys and values.
inline constexpr int kMaxChunkTiles = 16;
/// Below this many tiles merging costs more than the chunks save.
inline constexpr int kMinSplitTiles = 5;
inline constexpr int kMinChunkTiles = 2;

AUGUR_HOST_DEVICE constexpr int num_chunks(int num_tiles, const SplitRule& rule) {
  if (num_tiles < kMinSplitTiles * rule.scale) return num_tiles > 0 ? 1 : 0;
  const int longest = kMaxChunkTiles * rule.scale;
  const int shortest = kMinChunkTiles * rule.scale;
  const int by_length = (num_tiles + longest - 1) / longest;
  const int by_tiles = (num_tiles + shortest - 1) / shortest;
  const int by_spread = rule.spread < by_tiles ? rule.spread : by_tiles;
  const int wanted = by_length > by_spread ? by_length : by_spread;
  return wanted < rule.max_chunks ? wanted : rule.max_chunks;
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
  int cluster_size;       // thread blocks that share an item
  int num_stages;         // of each warp's ring
  int32_t* num_drawn;     // items drawn so far, beyond the first of every block
  int32_t* num_arrived;   // [num_seqs, units_per_seq, cluster_size]: chunks that are done
  float2* partial_sums;   // [num_seqs, units_per_seq, max_chunks, rows_per_unit]: maximum, sum
  float* partial_values;  // the same times head_dim up to whole groups, before dividing by the sum
};

/// Launches the kernel on num_blocks thread blocks. num_stages is filled in here.
void portable_decode_attention(DecodeAttentionParams params, int num_blocks, cudaStream_t stream);
void sm90_decode_attention(DecodeAttentionParams params, int num_blocks, cudaStream_t stream);
/// Clusters of up to kMaxDecodeCluster blocks that the device runs at once.
int sm90_max_decode_clusters(int cluster_size);

inline constexpr int kMaxDecodeCluster = 8;  // the most that every device of 9.0 takes

}  // namespace augur::cuda
