#include "kernels/cuda/decode_attention.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/decode_attention_launch.cuh"

namespace augur::cuda {
namespace {

constexpr int kMostSeqs = 4096;  // the plan of more would crowd the keys out of shared memory
// Sequences of no more visible positions are dealt to the blocks, longer ones drawn.
constexpr int kMostPositionsDealt = 512;

// One sequence alone is spread over the device, in whole rounds of the loads that merge its chunks;
// of many sequences a long one is cut fine enough not to be waited for.
int max_chunks(int units_per_seq) {
  return std::clamp(device_traits().num_sms / units_per_seq / 16 * 16, 16, kMostChunks);
}

int units_per_kv_head(int group) {
  return ceil_div(group, kMaxHeadRows);
}

struct Workspace {
  int64_t sums_offset;
  int64_t values_offset;
  int64_t num_bytes;
};

Workspace lay_out(
    int64_t num_seqs, int units_per_seq, int rows_per_unit, int head_dim, int max_chunks) {
  const int64_t rows = num_seqs * units_per_seq * max_chunks * rows_per_unit;
  Workspace workspace = {};
  workspace.sums_offset = kDecodeAttentionCounterBytes;
  workspace.values_offset = workspace.sums_offset + ceil_div<int64_t>(rows * 8, 256) * 256;
  workspace.num_bytes = workspace.values_offset + rows * num_kv_groups(head_dim) * kKvGroupCols * 4;
  return workspace;
}

// The most chunks that a unit of a context of up to max_context makes.
int chunks_of(int64_t max_context, const SplitRule& rule) {
  const int64_t tiles = ceil_div<int64_t>(max_context + kKvPieceRows - 1, kDecodeTileRows);
  return num_chunks(static_cast<int>(tiles), rule);
}

SplitRule split_rule(int64_t num_seqs, int units_per_seq, int head_dim) {
  const int64_t num_units = num_seqs * units_per_seq;
  const int num_sms = device_traits().num_sms;
  const int tile_bytes = 2 * kDecodeTileRows * num_kv_groups(head_dim) * kKvGroupCols * 2;
  return {.spread = std::max(1, static_cast<int>(num_sms / num_units)),
          .balance = static_cast<int>(ceil_div<int64_t>(kItemsForBalance * num_sms, num_units)),
          .fair_tiles = kFairChunkBytes / tile_bytes,
          .max_chunks = max_chunks(units_per_seq)};
}

}  // namespace

int64_t decode_attention_workspace_bytes(
    int64_t max_seqs, int num_heads, int num_kv_heads, int head_dim, int64_t max_context) {
  const int group = num_heads / num_kv_heads;
  const int units = num_kv_heads * units_per_kv_head(group);
  const int rows = std::min(group, kMaxHeadRows);
  // More sequences never make more chunks of one.
  const int chunks = chunks_of(max_context, split_rule(1, units, head_dim));
  return lay_out(max_seqs, units, rows, head_dim, chunks).num_bytes;
}

void decode_attention(const DecodeAttentionArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("decode_attention");
  const AttentionArgs& attention = args.attention;
  const KvCacheLayer& cache = attention.cache;
  const AttentionBatch& batch = attention.batch;
  AUGUR_REQUIRE(attention.q.dtype == DType::kBF16 && attention.out.dtype == DType::kBF16, "bf16");
  AUGUR_REQUIRE(cache.head_dim >= 8 && cache.head_dim <= 256 && cache.head_dim % 8 == 0,
                "head_dim is " + std::to_string(cache.head_dim));
  AUGUR_REQUIRE(cache.block_size > 0 && cache.block_size % kKvPieceRows == 0,
                "block_size is " + std::to_string(cache.block_size));
  AUGUR_REQUIRE(
      cache.num_kv_heads > 0 && attention.num_heads % cache.num_kv_heads == 0,
      std::to_string(attention.num_heads) + " heads of " + std::to_string(cache.num_kv_heads));
  AUGUR_REQUIRE(attention.q.row_stride % 8 == 0 && attention.out.row_stride % 8 == 0, "strides");
  AUGUR_REQUIRE(attention.scale > 0, "scale is " + std::to_string(attention.scale));
  AUGUR_REQUIRE(batch.num_tokens == batch.num_seqs && batch.num_seqs <= kMostSeqs,
                std::to_string(batch.num_tokens) + " rows of " + std::to_string(batch.num_seqs) +
                    " sequences");
  if (batch.num_seqs == 0) return;

  DecodeAttentionParams params = {};
  params.q = static_cast<const __nv_bfloat16*>(attention.q.data);
  params.q_stride = attention.q.row_stride;
  params.out = static_cast<__nv_bfloat16*>(attention.out.data);
  params.out_stride = attention.out.row_stride;
  params.cache = cache.data;
  params.block_bytes = kv_block_bytes(cache.block_size, cache.num_kv_heads, cache.head_dim);
  params.head_bytes = kv_head_bytes(cache.block_size, cache.head_dim);
  params.block_size = cache.block_size;
  params.group = attention.num_heads / cache.num_kv_heads;
  params.head_dim = cache.head_dim;
  params.num_heads = attention.num_heads;
  params.units_per_kv_head = units_per_kv_head(params.group);
  params.rows_per_unit = std::min(params.group, kMaxHeadRows);
  params.units_per_seq = cache.num_kv_heads * params.units_per_kv_head;
  params.num_seqs = batch.num_seqs;
  params.context_len = batch.context_len;
  params.block_table = batch.block_table;
  params.block_table_stride = batch.block_table_stride;
  params.scale_log2 = attention.scale * decode::kLog2E;
  params.window = args.window;
  params.sinks = args.sinks;
  const int64_t num_units = int64_t{batch.num_seqs} * params.units_per_seq;
  const bool is_bulk = args.path == DecodeAttentionPath::kBulk ||
                       (args.path == DecodeAttentionPath::kAuto && device_traits().is_hopper());
  params.rule = split_rule(batch.num_seqs, params.units_per_seq, cache.head_dim);
  AUGUR_REQUIRE((num_units + 1) * 4 <= kDecodeAttentionCounterBytes,
                std::to_string(num_units) + " units");

  const int64_t most_visible =
      args.window > 0 ? std::min<int64_t>(args.window, args.max_context) : args.max_context;
  params.rule.max_chunks = std::max(1, chunks_of(most_visible, params.rule));
  const Workspace workspace = lay_out(batch.num_seqs, params.units_per_seq, params.rows_per_unit,
                                      params.head_dim, params.rule.max_chunks);
  AUGUR_REQUIRE(workspace.num_bytes <= args.workspace_bytes,
                "the workspace has " + std::to_string(args.workspace_bytes) + " bytes, not " +
                    std::to_string(workspace.num_bytes));
  params.num_drawn = reinterpret_cast<int32_t*>(args.workspace);
  params.num_arrived = params.num_drawn + 1;
  params.partial_sums = reinterpret_cast<float2*>(args.workspace + workspace.sums_offset);
  params.partial_values = reinterpret_cast<float*>(args.workspace + workspace.values_offset);

  params.draws_items = most_visible > kMostPositionsDealt;
  const int64_t most_items = num_units * params.rule.max_chunks;
  (is_bulk ? sm90_decode_attention : portable_decode_attention)(params, most_items, stream);
}

void portable_decode_attention(DecodeAttentionParams params,
                               int64_t most_items,
                               cudaStream_t stream) {
  decode::launch_decode_attention</*kBulk=*/false>(params, most_items, stream);
}

int64_t bytes_moved(const DecodeAttentionArgs& args, int64_t num_positions) {
  const KvCacheLayer& cache = args.attention.cache;
  const int64_t keys_and_values =
      num_positions * cache.num_kv_heads * 2 * num_kv_groups(cache.head_dim) * kKvGroupCols * 2;
  const int64_t queries_and_results =
      int64_t{args.attention.batch.num_seqs} * args.attention.num_heads * cache.head_dim * 2 * 2;
  return keys_and_values + queries_and_results;
}

}  // namespace augur::cuda
