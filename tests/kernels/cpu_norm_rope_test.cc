#include "kernels/cpu/norm_rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/kv_layout.h"
#include "tests/kernels/available_isas.h"

namespace augur::cpu {
namespace {

std::vector<float> random_values(int64_t count, int seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-2.0f, 2.0f);
  std::vector<float> values(count);
  for (float& value : values) value = uniform(random);
  return values;
}

float value_of(uint16_t bits) {
  return to_float(Bf16{bits});
}

class CpuNormTest : public ::testing::TestWithParam<Isa> {};

TEST_P(CpuNormTest, AddsAndNormalisesLikePlainLoops) {
  constexpr float kEps = 1e-3f;
  for (int64_t num_cols : {1, 15, 16, 31, 64, 100, 256, 2048}) {
    for (int64_t num_rows : {0, 1, 5, 70}) {
      const int64_t stride = num_cols + 3;
      std::vector<float> hidden = random_values(num_rows * stride, 1);
      const std::vector<float> before = hidden;
      const std::vector<float> weight = random_values(num_cols, 2);
      std::vector<float> delta = random_values(num_rows * num_cols, 3);
      std::vector<uint16_t> out(num_rows * num_cols);
      std::vector<float> out_f32(num_rows * num_cols);
      AddRmsNormArgs args;
      args.hidden = {hidden.data(), DType::kF32, num_rows, num_cols, stride};
      args.delta = dense(delta.data(), DType::kF32, num_rows, num_cols);
      args.weight = weight.data();
      args.eps = kEps;
      args.out = dense(out.data(), DType::kBF16, num_rows, num_cols);
      args.out_f32 = dense(out_f32.data(), DType::kF32, num_rows, num_cols);
      WorkerPool pool(2);
      add_rms_norm(args, GetParam(), pool);
      for (int64_t row = 0; row < num_rows; ++row) {
        double sum = 0;
        for (int64_t col = 0; col < num_cols; ++col) {
          const float value = before[row * stride + col] + delta[row * num_cols + col];
          ASSERT_EQ(hidden[row * stride + col], value);
          sum += static_cast<double>(value) * value;
        }
        const double scale = 1.0 / std::sqrt(sum / static_cast<double>(num_cols) + kEps);
        for (int64_t col = 0; col < num_cols; ++col) {
          const float got = out_f32[row * num_cols + col];
          const double expected = hidden[row * stride + col] * scale * weight[col];
          ASSERT_NEAR(got, expected, 1e-5 + 1e-6 * std::abs(expected));
          ASSERT_EQ(out[row * num_cols + col], to_bf16(got).bits);
        }
        for (int64_t col = num_cols; col < stride; ++col) {
          ASSERT_EQ(hidden[row * stride + col], before[row * stride + col]);
        }
      }
    }
  }
}

TEST_P(CpuNormTest, GivesARowTheSameBitsAloneAndWithoutOptionalParts) {
  constexpr int64_t kRows = 40;
  constexpr int64_t kCols = 200;
  std::vector<float> hidden = random_values(kRows * kCols, 1);
  const std::vector<float> before = hidden;
  const std::vector<float> weight = random_values(kCols, 2);
  std::vector<uint16_t> out(kRows * kCols);
  WorkerPool pool(2);
  AddRmsNormArgs args;
  args.hidden = dense(hidden.data(), DType::kF32, kRows, kCols);
  args.weight = weight.data();
  args.out = dense(out.data(), DType::kBF16, kRows, kCols);
  add_rms_norm(args, GetParam(), pool);
  EXPECT_EQ(hidden, before);

  std::vector<float> zeros(kCols);
  std::vector<uint16_t> alone(kCols);
  for (int64_t row = 0; row < kRows; ++row) {
    AddRmsNormArgs one = args;
    one.hidden = args.hidden.rows(row, 1);
    one.delta = dense(zeros.data(), DType::kF32, 1, kCols);
    one.out = dense(alone.data(), DType::kBF16, 1, kCols);
    add_rms_norm(one, GetParam(), pool);
    EXPECT_EQ(alone,
              std::vector<uint16_t>(out.begin() + row * kCols, out.begin() + (row + 1) * kCols));
  }
}

TEST_P(CpuNormTest, RoundsToNearestEvenAndKeepsNaN) {
  // With a weight of 1 and a row of equal values 1 the result is 1 + what eps makes of it; the
  // values to round come in through the weight.
  std::vector<float> weight = {1.00390625f, 1.01171875f, -1.00390626f, 3.4e38f, 0.0f, NAN};
  std::vector<float> hidden(weight.size(), 1.0f);
  std::vector<uint16_t> out(weight.size());
  AddRmsNormArgs args;
  args.hidden = dense(hidden.data(), DType::kF32, 1, 6);
  args.weight = weight.data();
  args.out = dense(out.data(), DType::kBF16, 1, 6);
  WorkerPool pool(1);
  add_rms_norm(args, GetParam(), pool);
  for (size_t i = 0; i + 1 < weight.size(); ++i) EXPECT_EQ(out[i], to_bf16(weight[i]).bits) << i;
  EXPECT_TRUE(std::isnan(value_of(out.back())));
}

TEST_P(CpuNormTest, RefusesMismatchedShapes) {
  std::vector<float> values(64);
  AddRmsNormArgs args;
  args.hidden = dense(values.data(), DType::kF32, 2, 16);
  args.weight = values.data();
  args.out = dense(values.data(), DType::kBF16, 1, 16);
  WorkerPool pool(1);
  EXPECT_THROW(add_rms_norm(args, GetParam(), pool), std::logic_error);
  args.out = dense(values.data(), DType::kF32, 2, 16);
  EXPECT_THROW(add_rms_norm(args, GetParam(), pool), std::logic_error);
}

INSTANTIATE_TEST_SUITE_P(Isas, CpuNormTest, ::testing::ValuesIn(available_isas()), isa_test_name);

struct RopeShape {
  int num_heads, num_kv_heads, head_dim, rotary_dim;
  bool is_interleaved, has_norm;
};

class CpuRopeTest : public ::testing::TestWithParam<Isa> {
 protected:
  static constexpr int kTokens = 37;
  static constexpr int kBlocks = 4;
  static constexpr int kBlockSize = 32;
  static constexpr int kPositions = 64;
  static constexpr float kEps = 1e-4f;

  void prepare(const RopeShape& shape) {
    shape_ = shape;
    qkv_cols_ = (shape.num_heads + 2 * shape.num_kv_heads) * int64_t{shape.head_dim};
    q_cols_ = shape.num_heads * int64_t{shape.head_dim};
    qkv_ = random_values(kTokens * qkv_cols_, 4);
    norms_ = random_values(2 * shape.head_dim, 5);
    cos_.clear();
    sin_.clear();
    for (int position = 0; position < kPositions; ++position) {
      for (int i = 0; i < shape.rotary_dim / 2; ++i) {
        const double angle = position * std::pow(100.0, -2.0 * i / shape.rotary_dim);
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    positions_.clear();
    slots_.clear();
    for (int token = 0; token < kTokens; ++token) {
      positions_.push_back((token * 5) % kPositions);
      slots_.push_back((token * 29) % (kBlocks * kBlockSize));  // 29 and 128 are coprime
    }
    q_out_.assign(kTokens * q_cols_, 0);
    cache_.assign(kBlocks * kv_block_bytes_cpu(kBlockSize, shape.num_kv_heads, shape.head_dim) / 2,
                  0x7fff);
  }

  RopeAndCacheArgs args() {
    RopeAndCacheArgs args;
    args.qkv = dense(qkv_.data(), DType::kF32, kTokens, qkv_cols_);
    args.num_heads = shape_.num_heads;
    if (shape_.has_norm) {
      args.q_norm = norms_.data();
      args.k_norm = norms_.data() + shape_.head_dim;
    }
    args.norm_eps = kEps;
    args.rope = {cos_.data(), sin_.data(), shape_.rotary_dim, shape_.is_interleaved};
    args.positions = positions_.data();
    args.kv_slots = slots_.data();
    args.cache = {reinterpret_cast<std::byte*>(cache_.data()), kBlocks, kBlockSize,
                  shape_.num_kv_heads, shape_.head_dim};
    args.q_out = dense(q_out_.data(), DType::kBF16, kTokens, q_cols_);
    return args;
  }

  std::vector<double> expected_head(int token, int head, const float* norm) const {
    const float* from = qkv_.data() + token * qkv_cols_ + head * int64_t{shape_.head_dim};
    std::vector<double> values(from, from + shape_.head_dim);
    if (norm != nullptr) {
      double sum = 0;
      for (double value : values) sum += value * value;
      const double scale = 1.0 / std::sqrt(sum / shape_.head_dim + kEps);
      for (int d = 0; d < shape_.head_dim; ++d) values[d] *= scale * norm[d];
    }
    const int half = shape_.rotary_dim / 2;
    for (int i = 0; i < half; ++i) {
      double& a = values[shape_.is_interleaved ? 2 * i : i];
      double& b = values[shape_.is_interleaved ? 2 * i + 1 : i + half];
      const double cos = cos_[positions_[token] * half + i];
      const double sin = sin_[positions_[token] * half + i];
      const double turned = a * cos - b * sin;
      b = b * cos + a * sin;
      a = turned;
    }
    return values;
  }

  // Elements of the cache by the layout that kv_layout.h documents.
  size_t key_at(int64_t slot, int head, int d) const {
    const int64_t in_block = slot % kBlockSize;
    return block_of(slot, head) + in_block / 16 * 16 * shape_.head_dim + d / 2 * 32 +
           in_block % 16 * 2 + d % 2;
  }
  size_t value_at(int64_t slot, int head, int d) const {
    const int64_t in_block = slot % kBlockSize;
    return block_of(slot, head) + kBlockSize * int64_t{shape_.head_dim} +
           in_block / 2 * value_cols() * 2 + d * 2 + in_block % 2;
  }
  int64_t value_cols() const { return (shape_.head_dim + 15) / 16 * 16; }
  int64_t block_of(int64_t slot, int head) const {
    return (slot / kBlockSize * shape_.num_kv_heads + head) * kBlockSize *
           (shape_.head_dim + value_cols());
  }

  RopeShape shape_;
  int64_t qkv_cols_ = 0;
  int64_t q_cols_ = 0;
  std::vector<float> qkv_, norms_, cos_, sin_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<uint16_t> q_out_;
  std::vector<uint16_t> cache_;
};

TEST_P(CpuRopeTest, NormalisesTurnsAndStoresLikePlainLoops) {
  const RopeShape shapes[] = {
      {4, 2, 32, 32, false, false}, {4, 2, 32, 32, true, true},   {3, 1, 128, 128, false, true},
      {2, 2, 64, 16, false, true},  {2, 1, 80, 40, false, false}, {1, 1, 18, 10, true, false},
      {2, 1, 16, 0, false, false},  {2, 1, 2, 2, false, true},
  };
  for (const RopeShape& shape : shapes) {
    SCOPED_TRACE("head_dim " + std::to_string(shape.head_dim) + ", turned " +
                 std::to_string(shape.rotary_dim));
    prepare(shape);
    WorkerPool pool(2);
    rope_and_cache(args(), GetParam(), pool);
    const float* k_norm = shape.has_norm ? norms_.data() + shape.head_dim : nullptr;
    size_t num_written = 0;
    for (int token = 0; token < kTokens; ++token) {
      for (int head = 0; head < shape.num_heads; ++head) {
        const auto q = expected_head(token, head, shape.has_norm ? norms_.data() : nullptr);
        for (int d = 0; d < shape.head_dim; ++d) {
          const uint16_t got = q_out_[token * q_cols_ + head * shape.head_dim + d];
          // Half a step of bf16, and float32's errors where values cancel.
          ASSERT_NEAR(value_of(got), q[d], 0.00392 * std::abs(q[d]) + 2e-6);
        }
      }
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        const auto k = expected_head(token, shape.num_heads + head, k_norm);
        const float* v = qkv_.data() + token * qkv_cols_ +
                         (shape.num_heads + shape.num_kv_heads + head) * int64_t{shape.head_dim};
        for (int d = 0; d < shape.head_dim; ++d) {
          ASSERT_NEAR(value_of(cache_[key_at(slots_[token], head, d)]), k[d],
                      0.00392 * std::abs(k[d]) + 2e-6);
          ASSERT_EQ(cache_[value_at(slots_[token], head, d)], to_bf16(v[d]).bits);
          num_written += 2;
        }
      }
    }
    // Nothing else was touched.
    size_t num_left = 0;
    for (uint16_t bits : cache_) num_left += bits == 0x7fff;
    EXPECT_EQ(num_left, cache_.size() - num_written);
  }
}

TEST_P(CpuRopeTest, GivesATokenTheSameBitsAlone) {
  prepare({4, 2, 48, 32, false, true});
  WorkerPool pool(2);
  rope_and_cache(args(), GetParam(), pool);
  const std::vector<uint16_t> q_whole = q_out_;
  const std::vector<uint16_t> cache_whole = cache_;
  prepare(shape_);
  for (int token = kTokens - 1; token >= 0; --token) {
    RopeAndCacheArgs one = args();
    one.qkv = one.qkv.rows(token, 1);
    one.q_out = one.q_out.rows(token, 1);
    one.positions += token;
    one.kv_slots += token;
    rope_and_cache(one, GetParam(), pool);
  }
  EXPECT_EQ(q_out_, q_whole);
  EXPECT_EQ(cache_, cache_whole);
}

TEST_P(CpuRopeTest, RefusesSlotsOutsideTheCache) {
  prepare({1, 1, 16, 16, false, false});
  WorkerPool pool(1);
  slots_[3] = kBlocks * kBlockSize;
  EXPECT_THROW(rope_and_cache(args(), GetParam(), pool), std::logic_error);
  slots_[3] = -1;
  EXPECT_THROW(rope_and_cache(args(), GetParam(), pool), std::logic_error);
}

TEST_P(CpuRopeTest, DoesNothingForNoTokens) {
  prepare({1, 1, 16, 16, false, false});
  RopeAndCacheArgs none = args();
  none.qkv = none.qkv.rows(0, 0);
  none.q_out = none.q_out.rows(0, 0);
  WorkerPool pool(1);
  rope_and_cache(none, GetParam(), pool);
  for (uint16_t bits : cache_) ASSERT_EQ(bits, 0x7fff);
}

INSTANTIATE_TEST_SUITE_P(Isas, CpuRopeTest, ::testing::ValuesIn(available_isas()), isa_test_name);

}  // namespace
}  // namespace augur::cpu
