#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cpu/norm_rope.h"
#include "kernels/cpu/token_kernels.h"
#include "tests/kernels/available_isas.h"
#include "tests/kernels/plain_quantise.h"

namespace augur::cpu {
namespace {

struct Shape {
  int num_heads = 4;
  int num_kv_heads = 2;
  int head_dim = 32;
  int block_size = 16;
};

/// One sequence of a step: its last num_rows rows of `context` are asked for.
struct Ask {
  int sequence;
  int context;
  int num_rows;
};

using Rows = std::vector<uint16_t>;  // bf16
using Variant = std::tuple<Isa, KvFormat>;

/// Some sequences with all of their queries, keys and values, the latter two in a paged cache.
/// Every byte of the cache that no position was written to is part of a NaN.
class Sequences {
 public:
  Sequences(Shape shape, std::vector<int> lengths, Variant variant, float magnitude = 1.0f)
      : shape_(shape),
        lengths_(std::move(lengths)),
        isa_(std::get<Isa>(variant)),
        format_(std::get<KvFormat>(variant)),
        random_(shape.head_dim) {
    const int max_length = *std::max_element(lengths_.begin(), lengths_.end());
    stride_ = (max_length + shape.block_size - 1) / shape.block_size + 1;
    num_blocks_ = static_cast<int64_t>(stride_ * lengths_.size());
    std::vector<int32_t> blocks(num_blocks_);
    for (int64_t i = 0; i < num_blocks_; ++i) blocks[i] = static_cast<int32_t>(i);
    std::shuffle(blocks.begin(), blocks.end(), random_);
    block_table_ = blocks;
    cache_.assign(num_blocks_ * block_bytes() + 64, std::byte{0xff});
    for (size_t seq = 0; seq < lengths_.size(); ++seq) write(static_cast<int>(seq), magnitude);
  }

  int64_t cols() const { return int64_t{shape_.num_heads} * shape_.head_dim; }
  std::vector<float>& qkv(int seq) { return qkv_[seq]; }

  /// Writes a sequence's keys and values, and its queries, all as qkv(seq) says.
  void rewrite(int seq) {
    const int length = lengths_[seq];
    queries_[seq].assign(length * cols(), 0);
    std::vector<int32_t> positions(length);
    std::vector<int64_t> slots(length);
    for (int i = 0; i < length; ++i) {
      positions[i] = i;
      slots[i] = int64_t{block_table_[seq * stride_ + i / shape_.block_size]} * shape_.block_size +
                 i % shape_.block_size;
    }
    RopeAndCacheArgs args;
    args.qkv = dense(qkv_[seq].data(), DType::kF32, length, qkv_cols());
    args.num_heads = shape_.num_heads;
    args.positions = positions.data();
    args.kv_slots = slots.data();
    args.cache = layer();
    args.q_out = dense(queries_[seq].data(), DType::kBF16, length, cols());
    WorkerPool pool(2);
    rope_and_cache(args, isa_, pool);
  }

  Rows attend(const std::vector<Ask>& asks, int num_threads = 1) {
    std::vector<int32_t> query_start = {0};
    std::vector<int32_t> context_len;
    std::vector<int32_t> table;
    Rows q;
    StepLimits limits;
    for (const Ask& ask : asks) {
      query_start.push_back(query_start.back() + ask.num_rows);
      context_len.push_back(ask.context);
      table.insert(table.end(), block_table_.begin() + ask.sequence * stride_,
                   block_table_.begin() + (ask.sequence + 1) * stride_);
      const Rows& all = queries_[ask.sequence];
      q.insert(q.end(), all.begin() + (ask.context - ask.num_rows) * cols(),
               all.begin() + ask.context * cols());
      limits.max_context = std::max<int64_t>(limits.max_context, ask.context);
    }
    limits.max_tokens = query_start.back();
    limits.num_heads = shape_.num_heads;
    limits.head_dim = shape_.head_dim;
    Rows out(q.size(), 0x7fc0);
    AttentionArgs args;
    args.q = dense(q.data(), DType::kBF16, query_start.back(), cols());
    args.num_heads = shape_.num_heads;
    args.scale = scale();
    args.cache = layer();
    args.batch = {static_cast<int>(asks.size()),
                  query_start.back(),
                  query_start.data(),
                  context_len.data(),
                  table.data(),
                  stride_};
    args.out = dense(out.data(), DType::kBF16, query_start.back(), cols());
    // Exactly the bytes asked for, so that the address sanitizer sees a step too far.
    const int64_t bytes = attention_scratch_bytes(limits, isa_, num_threads);
    std::vector<std::byte> scratch(bytes + 64);
    std::byte* aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64);
    WorkerPool pool(num_threads);
    attention(args, isa_, pool, aligned);
    return out;
  }

  /// Plain softmax(scale q k^T) v in double, of the values as the cache keeps them.
  std::vector<float> expected(const Ask& ask) const {
    const int group = shape_.num_heads / shape_.num_kv_heads;
    std::vector<float> out;
    for (int row = ask.context - ask.num_rows; row < ask.context; ++row) {
      for (int head = 0; head < shape_.num_heads; ++head) {
        std::vector<double> weights(row + 1);
        double maximum = -1e300;
        for (int i = 0; i <= row; ++i) {
          const std::vector<double> key = cached(ask.sequence, i, shape_.num_heads + head / group);
          double dot = 0;
          for (int d = 0; d < shape_.head_dim; ++d) {
            dot += value(ask.sequence, row, head, d) * key[d];
          }
          weights[i] = dot * scale();
          maximum = std::max(maximum, weights[i]);
        }
        double sum = 0;
        for (double& weight : weights) sum += weight = std::exp(weight - maximum);
        std::vector<double> total(shape_.head_dim);
        for (int i = 0; i <= row; ++i) {
          const std::vector<double> values =
              cached(ask.sequence, i, shape_.num_heads + shape_.num_kv_heads + head / group);
          for (int d = 0; d < shape_.head_dim; ++d) total[d] += weights[i] * values[d];
        }
        for (const double value : total) out.push_back(static_cast<float>(value / sum));
      }
    }
    return out;
  }

 private:
  int64_t qkv_cols() const {
    return int64_t{shape_.num_heads + 2 * shape_.num_kv_heads} * shape_.head_dim;
  }
  int64_t block_bytes() const {
    return kv_block_bytes_cpu(shape_.block_size, shape_.num_kv_heads, shape_.head_dim, format_);
  }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }
  KvCacheLayer layer() {
    std::byte* data = cache_.data() + (64 - reinterpret_cast<uintptr_t>(cache_.data()) % 64);
    return {data, num_blocks_, shape_.block_size, shape_.num_kv_heads, shape_.head_dim, format_};
  }
  double value(int seq, int position, int head, int d) const {
    return to_float(
        to_bf16(qkv_[seq][position * qkv_cols() + head * int64_t{shape_.head_dim} + d]));
  }
  std::vector<double> cached(int seq, int position, int head) const {
    const float* from = qkv_[seq].data() + position * qkv_cols() + head * int64_t{shape_.head_dim};
    const PlainQuantised quantised = plain_quantise({from, static_cast<size_t>(shape_.head_dim)});
    std::vector<double> values;
    for (int d = 0; d < shape_.head_dim; ++d) {
      values.push_back(format_ == KvFormat::kInt8 ? quantised.value(d)
                                                  : value(seq, position, head, d));
    }
    return values;
  }
  void write(int seq, float magnitude) {
    std::uniform_real_distribution<float> uniform(-1.5f, 1.5f);
    qkv_.emplace_back(lengths_[seq] * qkv_cols());
    queries_.emplace_back();
    const int64_t first_value = qkv_cols() - int64_t{shape_.num_kv_heads} * shape_.head_dim;
    for (size_t i = 0; i < qkv_[seq].size(); ++i) {
      const bool is_value = static_cast<int64_t>(i) % qkv_cols() >= first_value;
      qkv_[seq][i] = uniform(random_) * (is_value ? 1.0f : magnitude);
    }
    rewrite(seq);
  }

  Shape shape_;
  std::vector<int> lengths_;
  Isa isa_;
  KvFormat format_;
  std::mt19937 random_;
  int64_t stride_ = 0;
  int64_t num_blocks_ = 0;
  std::vector<int32_t> block_table_;  // a shuffled [sequences, stride_]
  std::vector<std::byte> cache_;
  std::vector<std::vector<float>> qkv_;  // [length, (heads + 2 kv heads) * head_dim]
  std::vector<Rows> queries_;
};

// Values are within 1.5. Each probability is rounded to bf16 (2^-9 of itself, as is the sum
// through the result); the average of that over a row stays below the worst case of 2^-8 * 1.5.
constexpr float kTolerance = 8e-3f;

void expect_close(const Rows& rows, const std::vector<float>& expected) {
  ASSERT_EQ(rows.size(), expected.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_NEAR(to_float(Bf16{rows[i]}), expected[i], kTolerance) << "at " << i;
  }
}

Rows slice(const Rows& rows, int64_t cols, int first, int count) {
  return Rows(rows.begin() + first * cols, rows.begin() + (first + count) * cols);
}

class CpuAttentionTest : public ::testing::TestWithParam<Variant> {
 protected:
  static Isa isa() { return std::get<Isa>(GetParam()); }
  static KvFormat format() { return std::get<KvFormat>(GetParam()); }
};

TEST_P(CpuAttentionTest, AgreesWithPlainLoopsOverContexts) {
  for (int context : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 300}) {
    SCOPED_TRACE(context);
    Sequences sequences({}, {context}, GetParam());
    const Ask whole = {0, context, context};
    expect_close(sequences.attend({whole}), sequences.expected(whole));
  }
}

TEST_P(CpuAttentionTest, AgreesWithPlainLoopsInLongContexts) {
  // 512 is where partial results are folded.
  Sequences sequences({}, {1100}, GetParam());
  for (int context : {511, 512, 513, 1000, 1024, 1025, 1100}) {
    SCOPED_TRACE(context);
    const Ask last = {0, context, 3};
    for (int num_threads : {1, 3}) {
      expect_close(sequences.attend({last}, num_threads), sequences.expected(last));
    }
  }
}

TEST_P(CpuAttentionTest, AgreesWithPlainLoopsOverShapes) {
  const Shape shapes[] = {
      {1, 1, 2, 16},  {3, 3, 16, 32},   {8, 2, 32, 16},   {7, 1, 48, 64},    {32, 4, 128, 32},
      {5, 5, 80, 48}, {40, 1, 18, 128}, {16, 2, 256, 16}, {2, 1, 512, 1024},
  };
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.num_heads) + " heads, " + std::to_string(shape.num_kv_heads) +
                 " kv heads, head_dim " + std::to_string(shape.head_dim));
    Sequences sequences(shape, {37}, GetParam());
    const Ask whole = {0, 37, 37};
    expect_close(sequences.attend({whole}), sequences.expected(whole));
  }
}

TEST_P(CpuAttentionTest, GivesARowTheSameBitsInAnyChunking) {
  constexpr int kLength = 600;
  for (const Shape& shape : {Shape{8, 2, 32, 16}, Shape{7, 1, 40, 48}, Shape{3, 3, 64, 1024}}) {
    Sequences sequences(shape, {kLength}, GetParam());
    const Rows whole = sequences.attend({{0, kLength, kLength}});
    for (int chunk : {1, 3, 16, 130}) {
      Rows chunked;
      for (int start = chunk == 1 ? 480 : 0; start < kLength; start += chunk) {
        const int count = std::min(chunk, kLength - start);
        const Rows rows = sequences.attend({{0, start + count, count}});
        chunked.insert(chunked.end(), rows.begin(), rows.end());
      }
      const int num_rows = static_cast<int>(chunked.size() / sequences.cols());
      EXPECT_EQ(chunked, slice(whole, sequences.cols(), kLength - num_rows, num_rows))
          << "chunks of " << chunk;
    }
  }
}

TEST_P(CpuAttentionTest, GivesARowTheSameBitsBesideOtherSequences) {
  Sequences sequences({8, 2, 32, 32}, {1, 40, 700, 129, 530}, GetParam());
  const std::vector<Ask> asks = {{2, 700, 1}, {0, 1, 1}, {1, 40, 40}, {3, 129, 17}, {4, 530, 1}};
  const Rows batch = sequences.attend(asks);
  int first = 0;
  for (const Ask& ask : asks) {
    EXPECT_EQ(sequences.attend({ask}), slice(batch, sequences.cols(), first, ask.num_rows));
    first += ask.num_rows;
  }
}

TEST_P(CpuAttentionTest, GivesARowTheSameBitsOnAnyNumberOfThreads) {
  Sequences sequences({8, 2, 32, 32}, {2100, 1500, 20}, GetParam());
  for (const std::vector<Ask>& asks :
       {std::vector<Ask>{{0, 2100, 1}}, std::vector<Ask>{{0, 2100, 5}, {1, 1500, 1}},
        std::vector<Ask>{{2, 20, 20}, {0, 2100, 1}, {1, 1500, 300}}}) {
    const Rows alone = sequences.attend(asks, 1);
    for (int num_threads : {2, 3, 6}) {
      EXPECT_EQ(sequences.attend(asks, num_threads), alone) << num_threads << " threads";
    }
  }
}

TEST_P(CpuAttentionTest, SurvivesExtremeScores) {
  // Scores of about 1e9: one position has all the weight, and nothing overflows to NaN.
  Sequences sequences({}, {200}, GetParam(), /*magnitude=*/1e4f);
  for (uint16_t bits : sequences.attend({{0, 200, 200}})) {
    const float value = to_float(Bf16{bits});
    ASSERT_TRUE(std::isfinite(value));
    ASSERT_LE(std::abs(value), 1.51f);
  }
}

TEST_P(CpuAttentionTest, AveragesEqualScoresEvenly) {
  const Shape shape = {1, 1, 16, 16};
  Sequences sequences(shape, {400}, GetParam());
  for (int position = 0; position < 400; ++position) {
    for (int d = 0; d < 16; ++d) {
      sequences.qkv(0)[position * 48 + 16 + d] = 0.0f;  // keys
      sequences.qkv(0)[position * 48 + 32 + d] = position % 2 == 0 ? 1.0f : 3.0f;
    }
  }
  sequences.rewrite(0);
  // In int8 each weight is rounded together with its scale.
  const float tolerance = format() == KvFormat::kInt8 ? kTolerance : 0.0f;
  for (uint16_t bits : sequences.attend({{0, 400, 1}})) {
    EXPECT_NEAR(to_float(Bf16{bits}), 2.0f, tolerance);
  }
}

TEST_P(CpuAttentionTest, DoesNothingForNoTokens) {
  Sequences sequences({}, {4}, GetParam());
  EXPECT_TRUE(sequences.attend({}).empty());
  const Rows rows = sequences.attend({{0, 3, 0}, {0, 4, 3}, {0, 4, 0}});
  EXPECT_EQ(rows, sequences.attend({{0, 4, 3}}));
}

TEST_P(CpuAttentionTest, ExponentialKeepsItsErrorBound) {
  std::vector<float> x;
  for (float value = -125.0f; value <= 0.0f; value += 0.00317f) x.push_back(value);
  x.insert(x.end(), {0.0f, -1.0f, -1e4f, -3e38f, -INFINITY, NAN});
  std::vector<float> out(x.size());
  token_kernels(isa()).exp2_values(x.data(), static_cast<int64_t>(x.size()), out.data());
  const size_t num_plain = x.size() - 6;
  for (size_t i = 0; i < num_plain; ++i) {
    ASSERT_NEAR(out[i] / std::exp2(static_cast<double>(x[i])), 1.0, 3.1e-6) << x[i];
  }
  EXPECT_EQ(out[num_plain], 1.0f);
  EXPECT_EQ(out[num_plain + 1], 0.5f);
  for (size_t i = num_plain + 2; i < num_plain + 5; ++i) EXPECT_LT(out[i], 1.2e-38f);
  EXPECT_TRUE(std::isnan(out.back()));
}

TEST_P(CpuAttentionTest, ReadsAHeadThatIsNotFiniteAsNaN) {
  // As bf16 would: what went wrong upstream is not hidden.
  const Shape shape = {1, 1, 16, 16};
  for (const float wrong : {NAN, INFINITY}) {
    Sequences sequences(shape, {40}, GetParam());
    sequences.qkv(0)[21 * 48 + 32 + 5] = wrong;  // of a value
    sequences.rewrite(0);
    EXPECT_FALSE(std::isfinite(to_float(Bf16{sequences.attend({{0, 40, 1}})[5]})));
    for (uint16_t bits : sequences.attend({{0, 21, 1}})) {
      EXPECT_TRUE(std::isfinite(to_float(Bf16{bits}))) << "before that position";
    }
  }
}

TEST(KvLayoutTest, Int8TakesHalfTheBytesAndItsScales) {
  for (int head_dim : {32, 64, 128}) {
    const int64_t bf16_bytes = kv_block_bytes_cpu(64, 4, head_dim, KvFormat::kNative);
    constexpr int64_t kScales = 64 * 4 * 2;  // positions, heads, keys and values
    EXPECT_EQ(bf16_bytes, kScales * head_dim * 2);
    EXPECT_EQ(kv_block_bytes_cpu(64, 4, head_dim, KvFormat::kInt8), bf16_bytes / 2 + kScales * 4);
  }
}

TEST_P(CpuAttentionTest, RefusesWhatItCannotServe) {
  EXPECT_THROW(kv_block_bytes_cpu(8, 1, 32, format()), std::logic_error);
  EXPECT_THROW(kv_block_bytes_cpu(40, 1, 32, format()), std::logic_error);
  EXPECT_THROW(kv_block_bytes_cpu(16, 0, 32, format()), std::logic_error);
  EXPECT_THROW(kv_block_bytes_cpu(16, 1, 33, format()), std::logic_error);
  EXPECT_THROW(kv_block_bytes_cpu(16, 1, 514, format()), std::logic_error);
  Sequences sequences({3, 2, 32, 16}, {4}, GetParam());
  EXPECT_THROW(sequences.attend({{0, 4, 1}}), std::logic_error);
}

INSTANTIATE_TEST_SUITE_P(Variants,
                         CpuAttentionTest,
                         ::testing::Combine(::testing::ValuesIn(available_isas()),
                                            ::testing::Values(KvFormat::kNative, KvFormat::kInt8)),
                         [](const ::testing::TestParamInfo<Variant>& info) {
                           return std::string(isa_name(std::get<Isa>(info.param))) +
                                  (std::get<KvFormat>(info.param) == KvFormat::kInt8 ? "_int8"
                                                                                     : "_bf16");
                         });

}  // namespace
}  // namespace augur::cpu
