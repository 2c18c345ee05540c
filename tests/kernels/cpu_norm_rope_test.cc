#include "kernels/cpu/norm_rope.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "kernels/cpu/kv_layout.h"
#include "tests/kernels/available_isas.h"
#include "tests/kernels/plain_quantise.h"

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
    cache_.assign(
        kBlocks *
            kv_block_bytes_cpu(kBlockSize, shape.num_kv_heads, shape.head_dim, KvFormat::kNative) /
            2,
        0x7fff);
    // No value is quantised to -128, and no scale is negative.
    int8_cache_.assign(kBlocks * kv_block_bytes_cpu(kBlockSize, shape.num_kv_heads, shape.head_dim,
                                                    KvFormat::kInt8),
                       -128);
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

  RopeAndCacheArgs int8_args() {
    RopeAndCacheArgs args = this->args();
    args.cache.data = reinterpret_cast<std::byte*>(int8_cache_.data());
    args.cache.format = KvFormat::kInt8;
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

  // The same in int8: a group of 16 positions, its scales behind it.
  struct Int8Head {
    int64_t first, stride, stride_16, scale;  // bytes; stride_16: from column 16 i to 16 (i + 1)
  };
  Int8Head int8_head_at(int64_t slot, int head, bool is_value) const {
    const int64_t in_block = slot % kBlockSize;
    const int64_t key_group = 16 * shape_.head_dim + 64;
    const int64_t value_group = 16 * value_cols() + 64;
    const int64_t head_bytes = kBlockSize / 16 * (key_group + value_group);
    const int64_t start = (slot / kBlockSize * shape_.num_kv_heads + head) * head_bytes;
    const int64_t lane = in_block % 16;
    if (is_value) {
      const int64_t group = start + kBlockSize / 16 * key_group + in_block / 16 * value_group;
      return {group + lane / 2 * value_cols() * 2 + lane % 2 * 16, 1, 32,
              group + 16 * value_cols() + lane * 4};
    }
    const int64_t group = start + in_block / 16 * key_group;
    return {group + lane, 16, 256, group + 16 * shape_.head_dim + lane * 4};
  }
  float int8_scale(const Int8Head& at) const {
    float scale = 0;
    std::memcpy(&scale, int8_cache_.data() + at.scale, sizeof(scale));
    return scale;
  }
  int int8_value(const Int8Head& at, int d) const {
    return int8_cache_[at.first + d / 16 * at.stride_16 + d % 16 * at.stride];
  }
  void expect_quantised(const Int8Head& at, std::span<const double> expected) {
    double largest = 0;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    const double scale = int8_scale(at);
    ASSERT_NEAR(scale, largest / 127, largest * 1e-6);
    for (int d = 0; d < static_cast<int>(expected.size()); ++d) {
      // Half a step, and float32's errors on the way.
      ASSERT_NEAR(int8_value(at, d) * scale, expected[d], scale * 0.5 + 4e-6) << d;
    }
  }

  RopeShape shape_;
  int64_t qkv_cols_ = 0;
  int64_t q_cols_ = 0;
  std::vector<float> qkv_, norms_, cos_, sin_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slots_;
  std::vector<uint16_t> q_out_;
  std::vector<uint16_t> cache_;
  std::vector<int8_t> int8_cache_;
};

const RopeShape kRopeShapes[] = {
    {4, 2, 32, 32, false, false}, {4, 2, 32, 32, true, true},   {3, 1, 128, 128, false, true},
    {2, 2, 64, 16, false, true},  {2, 1, 80, 40, false, false}, {1, 1, 18, 10, true, false},
    {2, 1, 16, 0, false, false},  {2, 1, 2, 2, false, true},
};

TEST_P(CpuRopeTest, NormalisesTurnsAndStoresLikePlainLoops) {
  for (const RopeShape& shape : kRopeShapes) {
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

TEST_P(CpuRopeTest, QuantisesWithinHalfAScale) {
  for (const RopeShape& shape : kRopeShapes) {
    SCOPED_TRACE("head_dim " + std::to_string(shape.head_dim) + ", turned " +
                 std::to_string(shape.rotary_dim));
    prepare(shape);
    WorkerPool pool(2);
    rope_and_cache(int8_args(), GetParam(), pool);
    const float* k_norm = shape.has_norm ? norms_.data() + shape.head_dim : nullptr;
    for (int token = 0; token < kTokens; ++token) {
      for (int head = 0; head < shape.num_kv_heads; ++head) {
        expect_quantised(int8_head_at(slots_[token], head, /*is_value=*/false),
                         expected_head(token, shape.num_heads + head, k_norm));
        const float* v = qkv_.data() + token * qkv_cols_ +
                         (shape.num_heads + shape.num_kv_heads + head) * int64_t{shape.head_dim};
        const Int8Head at = int8_head_at(slots_[token], head, /*is_value=*/true);
        const PlainQuantised plain = plain_quantise({v, static_cast<size_t>(shape.head_dim)});
        ASSERT_EQ(int8_scale(at), plain.scale);
        for (int d = 0; d < shape.head_dim; ++d) ASSERT_EQ(int8_value(at, d), plain.values[d]);
      }
    }
    // Nothing else was touched: a scale has four bytes, the highest of which is not negative.
    int64_t num_left = 0;
    for (int8_t value : int8_cache_) num_left += value == -128;
    const int64_t num_written =
        int64_t{kTokens} * shape.num_kv_heads * 2 * (shape.head_dim + int64_t{4});
    const auto num_bytes = static_cast<int64_t>(int8_cache_.size());
    EXPECT_GE(num_left, num_bytes - num_written);
    EXPECT_LE(num_left, num_bytes - num_written + kTokens * shape.num_kv_heads * 2);
  }
}

TEST_P(CpuRopeTest, QuantisesZerosTinyValuesAndValuesThatAreNotFinite) {
  prepare({1, 1, 18, 0, false, false});
  const auto value = [&](int token, int d) -> float& {
    return qkv_[token * qkv_cols_ + 2 * shape_.head_dim + d];
  };
  for (int d = 0; d < 18; ++d) {
    value(0, d) = 0.0f;
    value(1, d) = d % 2 == 0 ? 3e-39f : -1e-31f;  // 127 over the first is infinite
    value(2, d) = d == 17 ? -3e38f : 1e38f;
  }
  value(3, 17) = NAN;
  value(4, 2) = -INFINITY;
  WorkerPool pool(1);
  rope_and_cache(int8_args(), GetParam(), pool);
  for (int token = 0; token < 2; ++token) {
    const Int8Head at = int8_head_at(slots_[token], 0, /*is_value=*/true);
    EXPECT_EQ(int8_scale(at), 0.0f);
    for (int d = 0; d < 18; ++d) EXPECT_EQ(int8_value(at, d), 0);
  }
  const Int8Head large = int8_head_at(slots_[2], 0, /*is_value=*/true);
  EXPECT_FLOAT_EQ(int8_scale(large), 3e38f / 127);
  EXPECT_EQ(int8_value(large, 17), -127);
  EXPECT_EQ(int8_value(large, 16), 42);
  for (int token : {3, 4}) {
    EXPECT_TRUE(std::isnan(int8_scale(int8_head_at(slots_[token], 0, /*is_value=*/true))));
  }
}

TEST_P(CpuRopeTest, QuantisesATokenToTheSameBitsAlone) {
  prepare({4, 2, 48, 32, false, true});
  WorkerPool pool(2);
  rope_and_cache(int8_args(), GetParam(), pool);
  const std::vector<int8_t> whole = int8_cache_;
  prepare(shape_);
  for (int token = kTokens - 1; token >= 0; --token) {
    RopeAndCacheArgs one = int8_args();
    one.qkv = one.qkv.rows(token, 1);
    one.q_out = one.q_out.rows(token, 1);
    one.positions += token;
    one.kv_slots += token;
    rope_and_cache(one, GetParam(), pool);
  }
  EXPECT_EQ(int8_cache_, whole);
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
