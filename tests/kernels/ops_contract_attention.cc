// Rotation, the KV cache and attention, seen together: the cache's layout is the backend's.
#include <algorithm>
#include <cmath>

#include "tests/kernels/ops_contract.h"

namespace augur::contract {
namespace {

struct AttentionProblem {
  std::string name;
  int num_heads, num_kv_heads, head_dim, block_size;
  int rotary_dim = 0;
  bool is_interleaved = false;
  bool has_norms = false;
  std::vector<int64_t> lengths;  // of the sequences
  KvFormat format = KvFormat::kNative;

  int64_t qkv_cols() const { return int64_t{num_heads + 2 * num_kv_heads} * head_dim; }
  int64_t q_cols() const { return int64_t{num_heads} * head_dim; }
};

// Positions [first, first + count) of one sequence, in one step.
struct Piece {
  int seq;
  int64_t first, count;
};
using Step = std::vector<Piece>;

struct AttentionResult {
  // Of every position of every sequence, one after the other.
  std::vector<float> q, out;
};

constexpr float kScale = 0.2f;

// Runs all positions, step by step, with the sequences' blocks strewn over the cache.
AttentionResult run_attention(Ops& ops,
                              const AttentionProblem& problem,
                              const std::vector<Step>& steps,
                              uint64_t block_seed) {
  Arena arena(ops);
  std::vector<int64_t> starts = {0};  // of the sequences among all positions
  std::vector<int64_t> first_block = {0};
  for (const int64_t length : problem.lengths) {
    starts.push_back(starts.back() + length);
    first_block.push_back(first_block.back() +
                          (length + problem.block_size - 1) / problem.block_size);
  }
  const int64_t num_positions = starts.back();
  const int64_t num_blocks = first_block.back() + 3;
  const int64_t longest = *std::max_element(problem.lengths.begin(), problem.lengths.end());
  const std::vector<int32_t> strewn = random_order(num_blocks, block_seed);
  const std::vector<float> qkv = random_values(num_positions * problem.qkv_cols(), 21);

  KvCacheLayer cache;
  cache.num_blocks = num_blocks;
  cache.block_size = problem.block_size;
  cache.num_kv_heads = problem.num_kv_heads;
  cache.head_dim = problem.head_dim;
  cache.format = problem.format;
  cache.data = arena.zeros(num_blocks * ops.kv_block_bytes(cache.block_size, cache.num_kv_heads,
                                                           cache.head_dim, cache.format));

  const int half = problem.rotary_dim / 2;
  std::vector<float> cos, sin;
  for (int64_t p = 0; p < longest; ++p) {
    for (int i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::pow(1000.0, -double{1} * i / half);
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  RopeTable rope = {arena.copy(cos), arena.copy(sin), problem.rotary_dim, problem.is_interleaved};
  const float* const q_norm =
      problem.has_norms ? arena.copy(random_values(problem.head_dim, 22)) : nullptr;
  const float* const k_norm =
      problem.has_norms ? arena.copy(random_values(problem.head_dim, 23)) : nullptr;

  AttentionResult result;
  result.q.resize(num_positions * problem.q_cols());
  result.out.resize(num_positions * problem.q_cols());
  for (const Step& step : steps) {
    // A row of the table per sequence of the step, a column to spare.
    const int64_t table_stride = (longest + problem.block_size - 1) / problem.block_size + 1;
    std::vector<float> step_qkv;
    std::vector<int32_t> positions, query_start = {0}, context_len, table;
    std::vector<int64_t> slots;
    for (const Piece& piece : step) {
      const auto* const blocks = strewn.data() + first_block[piece.seq];
      for (int64_t p = piece.first; p < piece.first + piece.count; ++p) {
        const float* const row = qkv.data() + (starts[piece.seq] + p) * problem.qkv_cols();
        step_qkv.insert(step_qkv.end(), row, row + problem.qkv_cols());
        positions.push_back(static_cast<int32_t>(p));
        slots.push_back(int64_t{blocks[p / problem.block_size]} * problem.block_size +
                        p % problem.block_size);
      }
      query_start.push_back(static_cast<int32_t>(positions.size()));
      context_len.push_back(static_cast<int32_t>(piece.first + piece.count));
      for (int64_t b = 0; b < table_stride; ++b) {
        const bool is_used = b < first_block[piece.seq + 1] - first_block[piece.seq];
        table.push_back(is_used ? blocks[b] : 0);
      }
    }
    const auto num_tokens = static_cast<int64_t>(positions.size());

    RopeAndCacheArgs rope_args;
    rope_args.qkv = arena.tensor(step_qkv, num_tokens, problem.qkv_cols(), DType::kF32);
    rope_args.num_heads = problem.num_heads;
    rope_args.q_norm = q_norm;
    rope_args.k_norm = k_norm;
    rope_args.norm_eps = 1e-6f;
    rope_args.rope = rope;
    rope_args.positions = arena.copy(positions);
    rope_args.kv_slots = arena.copy(slots);
    rope_args.cache = cache;
    rope_args.q_out = arena.result(num_tokens, problem.q_cols(), ops.activation_dtype());
    ops.rope_and_cache(rope_args);

    AttentionArgs args;
    args.q = rope_args.q_out;
    args.num_heads = problem.num_heads;
    args.scale = kScale;
    args.cache = cache;
    args.batch.num_seqs = static_cast<int>(step.size());
    args.batch.num_tokens = num_tokens;
    args.batch.query_start = arena.copy(query_start);
    args.batch.context_len = arena.copy(context_len);
    args.batch.block_table = arena.copy(table);
    args.batch.block_table_stride = table_stride;
    const auto first_long =
        std::find_if(step.begin(), step.end(), [](const Piece& piece) { return piece.count > 1; });
    args.batch.num_decode_seqs = static_cast<int>(first_long - step.begin());
    args.out = arena.result(num_tokens, problem.q_cols(), ops.activation_dtype());
    ops.attention(args);

    const std::vector<float> q = arena.read(args.q);
    const std::vector<float> out = arena.read(args.out);
    int64_t row = 0;
    for (const Piece& piece : step) {
      const int64_t to = (starts[piece.seq] + piece.first) * problem.q_cols();
      const int64_t from = row * problem.q_cols();
      const int64_t count = piece.count * problem.q_cols();
      std::copy_n(q.begin() + from, count, result.q.begin() + to);
      std::copy_n(out.begin() + from, count, result.out.begin() + to);
      row += piece.count;
    }
  }
  return result;
}

std::vector<Step> whole(const AttentionProblem& problem) {
  Step step;
  for (int s = 0; s < static_cast<int>(problem.lengths.size()); ++s) {
    step.push_back({s, 0, problem.lengths[s]});
  }
  return {step};
}

std::vector<Step> one_sequence_at_a_time(const AttentionProblem& problem) {
  const Step all = whole(problem).front();
  std::vector<Step> steps;
  for (const Piece& piece : all) steps.push_back({piece});
  return steps;
}

// All sequences advance together, the last one first, by `chunk` positions a step.
std::vector<Step> in_chunks(const AttentionProblem& problem, int64_t chunk) {
  std::vector<Step> steps;
  for (int64_t first = 0;; first += chunk) {
    Step step;
    for (int s = static_cast<int>(problem.lengths.size()) - 1; s >= 0; --s) {
      const int64_t left = problem.lengths[s] - first;
      if (left > 0) step.push_back({s, first, std::min(chunk, left)});
    }
    if (step.empty()) return steps;
    steps.push_back(step);
  }
}

/// Those that the backend takes, in every format that it takes.
std::vector<AttentionProblem> problems(const Ops& ops, const Backend& backend) {
  const std::vector<AttentionProblem> all = {
      {"one head", 1, 1, 32, 16, 32, false, false, {1}},
      {"grouped, half turned", 8, 2, 32, 16, 16, false, false, {37, 1, 64}},
      {"normalised", 4, 4, 64, 16, 64, false, true, {33, 16}},
      {"interleaved, long blocks", 6, 2, 16, 48, 8, true, false, {50, 3}},
      {"not turned", 16, 1, 128, 32, 0, false, false, {70}},
      {"odd head size", 4, 2, 20, 16, 12, false, true, {19, 9}},
      {"long", 4, 1, 64, 64, 64, false, false, {530}},
  };
  std::vector<AttentionProblem> problems;
  for (const KvFormat format : {KvFormat::kNative, KvFormat::kInt8}) {
    if (!ops.supports(format)) continue;
    for (AttentionProblem problem : all) {
      if (problem.head_dim % backend.head_dim_multiple != 0) continue;
      problem.format = format;
      if (format == KvFormat::kInt8) problem.name += ", int8";
      problems.push_back(problem);
    }
  }
  return problems;
}

TEST_P(OpsContract, RopeAndAttentionAreNearTheReference) {
  for (const AttentionProblem& problem : problems(*ops_, GetParam())) {
    SCOPED_TRACE(problem.name);
    const AttentionResult actual = run_attention(*ops_, problem, whole(problem), 1);
    const AttentionResult expected = run_attention(*reference_, problem, whole(problem), 1);
    const float tolerance = GetParam().activation_tolerance;
    EXPECT_TRUE(rows_are_near(actual.q, expected.q, problem.head_dim, tolerance));
    EXPECT_TRUE(rows_are_near(actual.out, expected.out, problem.head_dim, tolerance));
  }
}

TEST_P(OpsContract, AttentionDoesNotDependOnChunksBatchOrBlocks) {
  for (const AttentionProblem& problem : problems(*ops_, GetParam())) {
    const AttentionResult all = run_attention(*ops_, problem, whole(problem), 1);
    const auto check = [&](const std::vector<Step>& steps, const std::string& how) {
      const AttentionResult other = run_attention(*ops_, problem, steps, 2);
      EXPECT_TRUE(are_same_rows(other.q, all.q, problem.head_dim)) << problem.name << ", " << how;
      EXPECT_TRUE(are_same_rows(other.out, all.out, problem.head_dim))
          << problem.name << ", " << how;
    };
    check(one_sequence_at_a_time(problem), "one sequence at a time");
    for (const int64_t chunk : {1, 3, 16, 33}) {
      if (chunk == 1 && problem.lengths[0] > 100) continue;  // slow, and shorter ones show it
      check(in_chunks(problem, chunk), "in chunks of " + std::to_string(chunk));
    }
  }
}

TEST_P(OpsContract, LargeScoresDoNotOverflow) {
  // Keys and queries of one sign, far apart in size: a plain exp would be infinite.
  constexpr int kHeadDim = 32;
  for (Ops* ops : {ops_.get(), reference_.get()}) {
    Arena arena(*ops);
    KvCacheLayer cache;
    cache.num_blocks = 1;
    cache.block_size = 16;
    cache.num_kv_heads = 1;
    cache.head_dim = kHeadDim;
    cache.data = arena.zeros(ops->kv_block_bytes(16, 1, kHeadDim, cache.format));
    std::vector<float> qkv;
    for (int p = 0; p < 3; ++p) {
      qkv.insert(qkv.end(), kHeadDim, 16.0f);
      qkv.insert(qkv.end(), kHeadDim, p == 1 ? 16.0f : 1.0f);
      qkv.insert(qkv.end(), kHeadDim, static_cast<float>(p));
    }
    RopeAndCacheArgs rope_args;
    rope_args.qkv = arena.tensor(qkv, 3, 3 * kHeadDim, DType::kF32);
    rope_args.num_heads = 1;
    rope_args.positions = arena.copy(std::vector<int32_t>{0, 1, 2});
    rope_args.kv_slots = arena.copy(std::vector<int64_t>{0, 1, 2});
    rope_args.cache = cache;
    rope_args.q_out = arena.result(3, kHeadDim, ops->activation_dtype());
    ops->rope_and_cache(rope_args);
    AttentionArgs args;
    args.q = rope_args.q_out;
    args.num_heads = 1;
    args.scale = 1;
    args.cache = cache;
    args.batch = {1,
                  3,
                  arena.copy(std::vector<int32_t>{0, 3}),
                  arena.copy(std::vector<int32_t>{3}),
                  arena.copy(std::vector<int32_t>{0}),
                  1};
    args.out = arena.result(3, kHeadDim, ops->activation_dtype());
    ops->attention(args);
    std::vector<float> expected(kHeadDim, 0.0f);
    expected.resize(3 * kHeadDim, 1.0f);  // position 1 outweighs the others
    EXPECT_TRUE(are_identical(arena.read(args.out), expected)) << ops->description();
  }
}

TEST_P(OpsContract, AttentionOverNoRowsDoesNothing) {
  Arena arena(*ops_);
  KvCacheLayer cache;
  cache.num_blocks = 1;
  cache.block_size = 16;
  cache.num_kv_heads = 1;
  cache.head_dim = 32;
  cache.data = arena.zeros(ops_->kv_block_bytes(16, 1, 32, cache.format));
  AttentionArgs args;
  args.num_heads = 2;
  args.scale = 1;
  args.cache = cache;
  args.q = arena.result(0, 64, ops_->activation_dtype());
  args.out = arena.result(0, 64, ops_->activation_dtype());
  args.batch.query_start = arena.copy(std::vector<int32_t>{0});
  EXPECT_NO_THROW(ops_->attention(args));
}

}  // namespace
}  // namespace augur::contract
