#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/cpu/token_kernels.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

// A sequence is split along its context when one of its tiles is more than this part of a
// thread's share of the step.
constexpr int64_t kTilesPerThread = 4;
// Partial results are kept for about this many tokens of the longest context. A step that wants
// more splits only its first sequences; the others lose nothing but balance.
constexpr int64_t kSplitTokens = 8;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// How the work of one sequence is shared out. Units count heads, then tiles, then splits.
struct SequencePlan {
  int64_t first_unit;
  int64_t num_tiles;   // per KV head
  int64_t num_splits;  // units per tile: 1, or the splits of the whole context
  float* partials;     // null unless split
  int64_t first_fold;  // counts the tiles of split sequences
};

int64_t plan_bytes(int64_t max_seqs) {
  return ceil_div((max_seqs + 1) * static_cast<int64_t>(sizeof(SequencePlan)), 64) * 64;
}

/// Rises with each of its arguments, so that scratch for the limits is enough for every step.
int64_t num_partial_rows(int64_t num_tokens, int64_t max_context, int64_t num_heads) {
  return std::min(2 * num_tokens, kSplitTokens) * num_heads *
         ceil_div(max_context, kAttentionSplit);
}

/// Rows of a whole tile of a sequence.
int64_t tile_rows(int64_t num_tokens, int64_t group) {
  return std::min<int64_t>(kAttentionRows, num_tokens * group);
}

void check(const AttentionArgs& args) {
  const KvCacheLayer& cache = args.cache;
  const AttentionBatch& batch = args.batch;
  const int64_t num_cols = int64_t{args.num_heads} * cache.head_dim;
  AUGUR_REQUIRE(args.num_heads > 0 && args.num_heads % cache.num_kv_heads == 0,
                std::to_string(args.num_heads) + " heads for " +
                    std::to_string(cache.num_kv_heads) + " KV heads");
  AUGUR_REQUIRE(args.scale > 0 && std::isfinite(args.scale), std::to_string(args.scale));
  for (const Tensor& tensor : {args.q, args.out}) {
    AUGUR_REQUIRE(tensor.dtype == DType::kBF16 && tensor.num_rows == batch.num_tokens &&
                      tensor.num_cols == num_cols,
                  "q and out are bf16 [" + std::to_string(batch.num_tokens) + ", " +
                      std::to_string(num_cols) + "], not [" + std::to_string(tensor.num_rows) +
                      ", " + std::to_string(tensor.num_cols) + "]");
  }
  AUGUR_REQUIRE(batch.num_seqs >= 0 && batch.num_seqs <= batch.num_tokens,
                std::to_string(batch.num_seqs) + " sequences of " +
                    std::to_string(batch.num_tokens) + " rows");
  for (int seq = 0; seq < batch.num_seqs; ++seq) {
    const int64_t num_rows = batch.query_start[seq + 1] - int64_t{batch.query_start[seq]};
    const int64_t context = batch.context_len[seq];
    AUGUR_REQUIRE(batch.query_start[seq] >= 0 && num_rows >= 0 && num_rows <= context &&
                      batch.query_start[seq + 1] <= batch.num_tokens,
                  "sequence " + std::to_string(seq) + " has " + std::to_string(num_rows) +
                      " rows of a context of " + std::to_string(context));
    AUGUR_REQUIRE(ceil_div(context, cache.block_size) <= batch.block_table_stride,
                  "a context of " + std::to_string(context) + " in a table of " +
                      std::to_string(batch.block_table_stride) + " blocks of " +
                      std::to_string(cache.block_size));
    const int32_t* blocks = batch.block_table + seq * batch.block_table_stride;
    for (int64_t i = 0; i < ceil_div(context, cache.block_size); ++i) {
      AUGUR_REQUIRE(
          blocks[i] >= 0 && blocks[i] < cache.num_blocks,
          "block " + std::to_string(blocks[i]) + " of " + std::to_string(cache.num_blocks));
    }
  }
}

/// Fills plans[0, num_seqs], the last with the totals.
void make_plans(const AttentionArgs& args, int num_threads, SequencePlan* plans, float* partials) {
  const AttentionBatch& batch = args.batch;
  const int64_t num_kv_heads = args.cache.num_kv_heads;
  const int64_t group = args.num_heads / num_kv_heads;
  int64_t total_work = 0;  // tiles times positions
  int64_t max_context = 0;
  for (int seq = 0; seq < batch.num_seqs; ++seq) {
    const int64_t num_tokens = batch.query_start[seq + 1] - batch.query_start[seq];
    plans[seq].num_tiles = ceil_div(num_tokens * group, kAttentionRows);
    total_work += plans[seq].num_tiles * num_kv_heads * batch.context_len[seq];
    max_context = std::max<int64_t>(max_context, batch.context_len[seq]);
  }
  const int64_t max_rows = num_partial_rows(batch.num_tokens, max_context, args.num_heads);
  int64_t rows_used = 0;
  int64_t num_units = 0;
  int64_t num_folds = 0;
  for (int seq = 0; seq < batch.num_seqs; ++seq) {
    SequencePlan& plan = plans[seq];
    const int64_t num_tokens = batch.query_start[seq + 1] - batch.query_start[seq];
    const int64_t context = batch.context_len[seq];
    const int64_t num_splits = ceil_div(context, kAttentionSplit);
    const int64_t num_rows =
        plan.num_tiles * num_kv_heads * num_splits * tile_rows(num_tokens, group);
    const bool is_split = num_threads > 1 && num_splits > 1 &&
                          context * kTilesPerThread * num_threads > total_work &&
                          num_rows <= max_rows - rows_used;
    plan.num_splits = is_split ? num_splits : 1;
    plan.partials =
        is_split ? partials + rows_used * partial_row_floats(args.cache.head_dim) : nullptr;
    plan.first_unit = num_units;
    plan.first_fold = num_folds;
    num_units += plan.num_tiles * num_kv_heads * plan.num_splits;
    if (is_split) {
      rows_used += num_rows;
      num_folds += plan.num_tiles * num_kv_heads;
    }
  }
  plans[batch.num_seqs] = {num_units, 0, 0, nullptr, num_folds};
}

/// The tile `tile_idx` (heads, then tiles of rows) of a sequence, with all of its splits.
AttentionTile make_tile(const AttentionArgs& args,
                        const KvLayout& layout,
                        const SequencePlan& plan,
                        int seq,
                        int64_t tile_idx) {
  const KvCacheLayer& cache = args.cache;
  const AttentionBatch& batch = args.batch;
  const int64_t first_token = batch.query_start[seq];
  const int64_t num_tokens = batch.query_start[seq + 1] - first_token;
  const int64_t kv_head = tile_idx / plan.num_tiles;
  AttentionTile tile = {};
  tile.group = args.num_heads / cache.num_kv_heads;
  tile.q = args.q.row<uint16_t>(first_token) + kv_head * tile.group * cache.head_dim;
  tile.q_stride = args.q.row_stride;
  tile.out = args.out.row<uint16_t>(first_token) + kv_head * tile.group * cache.head_dim;
  tile.out_stride = args.out.row_stride;
  tile.first_row = tile_idx % plan.num_tiles * kAttentionRows;
  tile.num_rows =
      static_cast<int>(std::min<int64_t>(kAttentionRows, num_tokens * tile.group - tile.first_row));
  tile.first_position = batch.context_len[seq] - num_tokens;
  tile.scale_log2e = args.scale * 1.44269504f;
  tile.format = cache.format;
  tile.cache = cache.data + kv_head * layout.head_bytes;
  tile.block_bytes = layout.block_bytes;
  tile.block_size = layout.block_size;
  tile.key_group_bytes = layout.key_group_bytes;
  tile.value_group_bytes = layout.value_group_bytes;
  tile.values_offset = layout.values_offset;
  tile.head_dim = cache.head_dim;
  tile.block_table = batch.block_table + seq * batch.block_table_stride;
  const int64_t last_position =
      tile.first_position + (tile.first_row + tile.num_rows - 1) / tile.group;
  tile.num_splits = last_position / kAttentionSplit + 1;
  if (plan.partials != nullptr) {
    tile.split_rows = tile_rows(num_tokens, tile.group);
    tile.partials = plan.partials + tile_idx * plan.num_splits * tile.split_rows *
                                        partial_row_floats(cache.head_dim);
  }
  return tile;
}

/// The sequence whose units (or folds, as `first` says) hold `unit`.
template <typename First>
int find_sequence(const SequencePlan* plans, int num_seqs, int64_t unit, First first) {
  const SequencePlan* next = std::upper_bound(
      plans, plans + num_seqs, unit,
      [&](int64_t value, const SequencePlan& plan) { return value < plan.*first; });
  return static_cast<int>(next - plans) - 1;
}

}  // namespace

int64_t attention_scratch_bytes(const StepLimits& limits, Isa isa, int num_threads) {
  AUGUR_REQUIRE(limits.head_dim >= 0 && limits.head_dim <= kMaxHeadDim,
                "head_dim is " + std::to_string(limits.head_dim) + "; at most " +
                    std::to_string(kMaxHeadDim) + " is accepted");
  AUGUR_REQUIRE(limits.max_tokens >= 0 && limits.max_context >= 0 && limits.num_heads >= 0,
                "negative limits");
  const int64_t num_rows =
      num_threads == 1 ? 0
                       : num_partial_rows(limits.max_tokens, limits.max_context, limits.num_heads);
  return plan_bytes(limits.max_tokens) + num_rows *
                                             partial_row_floats(static_cast<int>(limits.head_dim)) *
                                             static_cast<int64_t>(sizeof(float));
}

void attention(const AttentionArgs& args, Isa isa, WorkerPool& pool, std::byte* scratch) {
  const KvLayout layout = kv_layout(args.cache.block_size, args.cache.num_kv_heads,
                                    args.cache.head_dim, args.cache.format);
  check(args);
  const int num_seqs = args.batch.num_seqs;
  SequencePlan* plans = reinterpret_cast<SequencePlan*>(scratch);
  float* partials = reinterpret_cast<float*>(scratch + plan_bytes(num_seqs));
  make_plans(args, pool.num_threads(), plans, partials);

  const TokenKernels& kernels = token_kernels(isa);
  pool.parallel_for(plans[num_seqs].first_unit, [&](int64_t unit, int) {
    const int seq = find_sequence(plans, num_seqs, unit, &SequencePlan::first_unit);
    const SequencePlan& plan = plans[seq];
    const int64_t unit_of_seq = unit - plan.first_unit;
    AttentionTile tile = make_tile(args, layout, plan, seq, unit_of_seq / plan.num_splits);
    if (plan.partials != nullptr) {
      tile.first_split = unit_of_seq % plan.num_splits;
      if (tile.first_split >= tile.num_splits) return;  // past the last row of an early tile
      tile.num_splits = 1;
      tile.partials += tile.first_split * tile.split_rows * partial_row_floats(tile.head_dim);
    }
    kernels.attend(tile);
  });
  pool.parallel_for(plans[num_seqs].first_fold, [&](int64_t fold, int) {
    const int seq = find_sequence(plans, num_seqs, fold, &SequencePlan::first_fold);
    kernels.fold_splits(make_tile(args, layout, plans[seq], seq, fold - plans[seq].first_fold));
  });
}

}  // namespace augur::cpu
