// Rotation, cache and attention of the reference against plain loops in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/reference_ops.h"
#include "tests/kernels/ops_contract.h"
#include "tests/kernels/plain_quantise.h"

namespace augur {
namespace {

using contract::Arena;
using contract::contract_limits;
using contract::random_values;
using contract::rows_are_near;

struct Shape {
  int num_heads, num_kv_heads, head_dim, block_size;
};

class ReferenceAttentionTest : public ::testing::Test {
 protected:
  void SetUp() override { ops_->reserve(contract_limits()); }

  KvCacheLayer make_cache(const Shape& shape,
                          int64_t num_blocks,
                          KvFormat format = KvFormat::kNative) {
    const int64_t block_bytes =
        ops_->kv_block_bytes(shape.block_size, shape.num_kv_heads, shape.head_dim, format);
    return {arena_.zeros(num_blocks * block_bytes),
            num_blocks,
            shape.block_size,
            shape.num_kv_heads,
            shape.head_dim,
            format};
  }

  std::unique_ptr<Ops> ops_ = make_reference_ops(2);
  Arena arena_{*ops_};
};

// Turns the head in place, a pair at a time, as a complex number.
void turn(std::vector<double>& head, const std::vector<double>& angles, bool is_interleaved) {
  const size_t half = angles.size();
  for (size_t i = 0; i < half; ++i) {
    double& re = head[is_interleaved ? 2 * i : i];
    double& im = head[is_interleaved ? 2 * i + 1 : i + half];
    const double x = re, y = im;
    re = x * std::cos(angles[i]) - y * std::sin(angles[i]);
    im = x * std::sin(angles[i]) + y * std::cos(angles[i]);
  }
}

void normalise(std::vector<double>& head, const std::vector<float>& weight, double eps) {
  double squares = 0;
  for (const double value : head) squares += value * value;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(head.size()) + eps);
  for (size_t d = 0; d < head.size(); ++d) head[d] *= scale * weight[d];
}

TEST_F(ReferenceAttentionTest, QueriesAreNormalisedAndTurned) {
  struct Case {
    Shape shape;
    int rotary_dim;
    bool is_interleaved, has_norm;
  };
  for (const Case& c : {Case{{1, 1, 2, 4}, 2, false, false}, Case{{3, 1, 8, 4}, 8, false, false},
                        Case{{2, 2, 8, 4}, 4, false, false}, Case{{2, 1, 8, 4}, 8, true, false},
                        Case{{2, 1, 10, 4}, 6, true, true}, Case{{4, 2, 16, 4}, 8, false, true},
                        Case{{2, 1, 8, 4}, 0, false, true}}) {
    constexpr int64_t kTokens = 3;
    const std::vector<int32_t> positions = {0, 1, 5};
    const int half = c.rotary_dim / 2;
    const int64_t num_cols =
        int64_t{c.shape.num_heads + 2 * c.shape.num_kv_heads} * c.shape.head_dim;
    const std::vector<float> qkv = random_values(kTokens * num_cols, 1);
    const std::vector<float> norm = random_values(c.shape.head_dim, 2);
    std::vector<float> cos, sin;
    const auto angle = [&](int64_t position, int i) {
      return static_cast<double>(position) / (1.0 + 3 * i);
    };
    for (int64_t p = 0; p < 6; ++p) {
      for (int i = 0; i < half; ++i) {
        cos.push_back(static_cast<float>(std::cos(angle(p, i))));
        sin.push_back(static_cast<float>(std::sin(angle(p, i))));
      }
    }
    RopeAndCacheArgs args;
    args.qkv = arena_.tensor(qkv, kTokens, num_cols, DType::kF32);
    args.num_heads = c.shape.num_heads;
    args.q_norm = c.has_norm ? arena_.copy(norm) : nullptr;
    args.norm_eps = 0.01f;
    args.rope = {arena_.copy(cos), arena_.copy(sin), c.rotary_dim, c.is_interleaved};
    args.positions = arena_.copy(positions);
    args.kv_slots = arena_.copy(std::vector<int64_t>{0, 1, 2});
    args.cache = make_cache(c.shape, 1);
    args.q_out = arena_.result(kTokens, c.shape.num_heads * c.shape.head_dim, DType::kF32);
    ops_->rope_and_cache(args);

    std::vector<float> expected;
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int h = 0; h < c.shape.num_heads; ++h) {
        const float* const from = qkv.data() + t * num_cols + h * c.shape.head_dim;
        std::vector<double> head(from, from + c.shape.head_dim);
        if (c.has_norm) normalise(head, norm, 0.01);
        std::vector<double> angles;
        for (int i = 0; i < half; ++i) angles.push_back(angle(positions[t], i));
        turn(head, angles, c.is_interleaved);
        expected.insert(expected.end(), head.begin(), head.end());
      }
    }
    EXPECT_TRUE(rows_are_near(arena_.read(args.q_out), expected, c.shape.head_dim, 2e-6f));
  }
}

struct Sequence {
  int64_t context;   // positions in all
  int64_t num_rows;  // of them in this step, the last ones
  std::vector<int32_t> blocks;
};

// One step over these sequences, every position written to the cache first; keys are normalised
// where `has_norm`. The result and what plain loops make of it, a head a row.
void check_attention(Ops& ops,
                     Arena& arena,
                     const Shape& shape,
                     const KvCacheLayer& cache,
                     const std::vector<Sequence>& sequences,
                     bool has_norm) {
  const int64_t head_dim = shape.head_dim;
  const int64_t num_cols = (shape.num_heads + 2 * shape.num_kv_heads) * head_dim;
  const int group = shape.num_heads / shape.num_kv_heads;
  constexpr float kScale = 0.3f;
  const std::vector<float> norm = random_values(head_dim, 3);

  std::vector<float> q_rows;
  std::vector<double> expected;
  std::vector<int32_t> query_start = {0}, context_len, table;
  int64_t table_stride = 0;
  for (const Sequence& s : sequences) {
    table_stride = std::max(table_stride, static_cast<int64_t>(s.blocks.size()));
  }
  for (size_t s = 0; s < sequences.size(); ++s) {
    const auto& [context, num_rows, blocks] = sequences[s];
    const std::vector<float> qkv = random_values(context * num_cols, 10 + s);
    std::vector<int32_t> positions;
    std::vector<int64_t> slots;
    for (int64_t p = 0; p < context; ++p) {
      positions.push_back(static_cast<int32_t>(p));
      slots.push_back(int64_t{blocks[p / shape.block_size]} * shape.block_size +
                      p % shape.block_size);
    }
    RopeAndCacheArgs rope;
    rope.qkv = arena.tensor(qkv, context, num_cols, DType::kF32);
    rope.num_heads = shape.num_heads;
    rope.k_norm = has_norm ? arena.copy(norm) : nullptr;
    rope.positions = arena.copy(positions);
    rope.kv_slots = arena.copy(slots);
    rope.cache = cache;
    rope.q_out = arena.result(context, shape.num_heads * head_dim, DType::kF32);
    ops.rope_and_cache(rope);

    const auto head = [&](int64_t position, int64_t head_idx) {
      const float* const from = qkv.data() + position * num_cols + head_idx * head_dim;
      return std::vector<double>(from, from + head_dim);
    };
    const auto cached = [&](int64_t position, int64_t head_idx) {
      std::vector<double> values = head(position, head_idx);
      if (cache.format == KvFormat::kNative) return values;
      const float* const from = qkv.data() + position * num_cols + head_idx * head_dim;
      const PlainQuantised quantised = plain_quantise({from, static_cast<size_t>(head_dim)});
      for (int64_t d = 0; d < head_dim; ++d) values[d] = quantised.value(d);
      return values;
    };
    for (int64_t row = context - num_rows; row < context; ++row) {
      for (int h = 0; h < shape.num_heads; ++h) {
        const std::vector<double> q = head(row, h);
        q_rows.insert(q_rows.end(), q.begin(), q.end());
        std::vector<double> sum(head_dim);
        double total = 0;
        for (int64_t p = 0; p <= row; ++p) {
          std::vector<double> k = cached(p, shape.num_heads + h / group);
          if (has_norm) normalise(k, norm, 0);
          const std::vector<double> v = cached(p, shape.num_heads + shape.num_kv_heads + h / group);
          double score = 0;
          for (int64_t d = 0; d < head_dim; ++d) score += q[d] * k[d];
          const double weight = std::exp(kScale * score);
          total += weight;
          for (int64_t d = 0; d < head_dim; ++d) sum[d] += weight * v[d];
        }
        for (const double value : sum) expected.push_back(value / total);
      }
    }
    query_start.push_back(query_start.back() + static_cast<int32_t>(num_rows));
    context_len.push_back(static_cast<int32_t>(context));
    table.insert(table.end(), blocks.begin(), blocks.end());
    table.resize((s + 1) * table_stride, -1);
  }

  const int64_t num_tokens = query_start.back();
  AttentionArgs args;
  args.q = arena.activations(q_rows, num_tokens, shape.num_heads * head_dim);
  args.num_heads = shape.num_heads;
  args.scale = kScale;
  args.cache = cache;
  args.batch.num_seqs = static_cast<int>(sequences.size());
  args.batch.num_tokens = num_tokens;
  args.batch.query_start = arena.copy(query_start);
  args.batch.context_len = arena.copy(context_len);
  args.batch.block_table = arena.copy(table);
  args.batch.block_table_stride = table_stride;
  args.out = arena.result(num_tokens, shape.num_heads * head_dim, DType::kF32);
  ops.attention(args);
  EXPECT_TRUE(
      rows_are_near(arena.read(args.out), {expected.begin(), expected.end()}, head_dim, 1e-5f));
}

TEST_F(ReferenceAttentionTest, OnePositionSeesItself) {
  const Shape shape = {1, 1, 4, 16};
  check_attention(*ops_, arena_, shape, make_cache(shape, 1), {{1, 1, {0}}}, false);
}

TEST_F(ReferenceAttentionTest, SequencesWithBlocksOutOfOrder) {
  const Shape shape = {4, 2, 20, 8};
  check_attention(*ops_, arena_, shape, make_cache(shape, 12),
                  {{30, 30, {7, 2, 11, 0}}, {1, 1, {5}}, {16, 3, {9, 1}}, {17, 1, {3, 10, 4}}},
                  false);
}

TEST_F(ReferenceAttentionTest, ASequenceWithoutRowsIsPassedOver) {
  const Shape shape = {2, 1, 16, 16};
  check_attention(*ops_, arena_, shape, make_cache(shape, 4),
                  {{5, 0, {2}}, {20, 4, {3, 1}}, {3, 0, {0}}}, false);
}

TEST_F(ReferenceAttentionTest, ManyQueryHeadsShareAKeyHead) {
  const Shape shape = {12, 2, 32, 3};
  check_attention(*ops_, arena_, shape, make_cache(shape, 8), {{23, 23, {6, 5, 4, 3, 2, 1, 0, 7}}},
                  false);
}

TEST_F(ReferenceAttentionTest, KeysAreNormalisedBeforeTheyAreCached) {
  const Shape shape = {2, 2, 24, 16};
  check_attention(*ops_, arena_, shape, make_cache(shape, 2), {{19, 19, {1, 0}}}, true);
}

TEST_F(ReferenceAttentionTest, Int8IsReadAsItWasQuantised) {
  const Shape shape = {4, 2, 20, 8};
  check_attention(*ops_, arena_, shape, make_cache(shape, 12, KvFormat::kInt8),
                  {{30, 30, {7, 2, 11, 0}}, {1, 1, {5}}, {16, 3, {9, 1}}, {17, 1, {3, 10, 4}}},
                  false);
  const Shape odd = {3, 1, 7, 21};  // blocks of more than a run, and of no whole number of runs
  check_attention(*ops_, arena_, odd, make_cache(odd, 4, KvFormat::kInt8), {{70, 9, {3, 1, 0, 2}}},
                  false);
}

TEST_F(ReferenceAttentionTest, RefusesABatchThatDoesNotFitTheCache) {
  const Shape shape = {2, 2, 8, 4};
  AttentionArgs args;
  args.num_heads = 2;
  args.scale = 1;
  args.cache = make_cache(shape, 2);
  args.q = arena_.activations(random_values(16, 1), 1, 16);
  args.out = arena_.result(1, 16, DType::kF32);
  const auto run = [&](std::vector<int32_t> starts, int32_t context, std::vector<int32_t> blocks) {
    args.batch = {1, 1, starts.data(), &context, blocks.data(), 2};
    ops_->attention(args);
  };
  EXPECT_NO_THROW(run({0, 1}, 5, {1, 0}));
  EXPECT_THROW(run({0, 2}, 5, {1, 0}), std::logic_error);  // rows that are not there
  EXPECT_THROW(run({0, 1}, 0, {1, 0}), std::logic_error);  // a row without a position
  EXPECT_THROW(run({0, 1}, 9, {1, 0}), std::logic_error);  // more blocks than the table has
  EXPECT_THROW(run({0, 1}, 5, {1, 2}), std::logic_error);  // a block the cache lacks
  EXPECT_THROW(run({0, 1}, 5, {-1, 0}), std::logic_error);
  EXPECT_THROW(run({0, 1}, 601, {1, 0}), std::logic_error);  // longer than reserved
  args.num_heads = 3;
  EXPECT_THROW(run({0, 1}, 5, {1, 0}), std::logic_error);
}

TEST_F(ReferenceAttentionTest, RefusesASlotOutsideTheCache) {
  const Shape shape = {1, 1, 8, 4};
  RopeAndCacheArgs args;
  args.qkv = arena_.result(1, 24, DType::kF32);
  args.num_heads = 1;
  args.positions = arena_.copy(std::vector<int32_t>{0});
  args.cache = make_cache(shape, 2);
  args.q_out = arena_.result(1, 8, DType::kF32);
  for (const int64_t slot : {-1, 8}) {
    args.kv_slots = arena_.copy(std::vector<int64_t>{slot});
    EXPECT_THROW(ops_->rope_and_cache(args), std::logic_error);
  }
}

}  // namespace
}  // namespace augur
