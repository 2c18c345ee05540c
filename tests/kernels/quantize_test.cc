#include "kernels/cpu/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/reference_ops.h"
#include "tests/kernels/gemm_fixture.h"

namespace augur::cpu {
namespace {

struct Size {
  int64_t hidden;
  int64_t intermediate;
};

// An expert in both formats. The int8 block is full of other bytes before.
struct TwoForms {
  TwoForms(const Size& size, const TestMlp& mlp, const Ops& ops)
      : bf16(expert_layout(ops, size.hidden, size.intermediate)),
        int8(expert_layout(ops, size.hidden, size.intermediate, ExpertFormat::kInt8)),
        from(allocate_host(bf16.block_bytes)),
        to(allocate_host(int8.block_bytes)) {
    const auto put = [&](int64_t offset, const Buffer& packed) {
      std::memcpy(from.data() + offset, packed.data(), packed.num_bytes());
    };
    put(0, mlp.gate.packed);
    put(bf16.up_offset, mlp.up.packed);
    put(bf16.down_offset, mlp.down.packed);
    std::memset(to.data(), 0x5a, to.num_bytes());
    ops.quantize_expert(bf16, from.data(), int8, to.data());
  }
  ExpertLayout bf16, int8;
  Buffer from, to;
};

float largest_of(const TestMatrix& matrix, int64_t row) {
  float largest = 0;
  for (int64_t col = 0; col < matrix.num_cols; ++col) {
    largest = std::max(largest, std::abs(matrix.at(row, col)));
  }
  return largest;
}

// Every weight within half a scale of what it was, the largest of a row within rounding.
void expect_is_near(const PackedMatrix& int8, const TestMatrix& expected) {
  ASSERT_NE(int8.scales, nullptr);
  std::vector<float> values(expected.values.size());
  dequantize(int8, values.data());
  for (int64_t row = 0; row < expected.num_rows; ++row) {
    const float scale = int8.scales[row];
    EXPECT_FLOAT_EQ(scale, largest_of(expected, row) / 127);
    for (int64_t col = 0; col < expected.num_cols; ++col) {
      const float error = values[row * expected.num_cols + col] - expected.at(row, col);
      // 127 * 2^-24 of a scale is what rounding the product adds.
      ASSERT_LE(std::abs(error), scale * (0.5f + 1e-5f)) << row << ", " << col;
    }
  }
}

class QuantizeTest : public ::testing::TestWithParam<Size> {
 protected:
  std::unique_ptr<Ops> ops_ = make_cpu_ops(1);
};

TEST_P(QuantizeTest, EveryWeightIsWithinHalfAScale) {
  const TestMlp mlp(GetParam().hidden, GetParam().intermediate, 3);
  const TwoForms forms(GetParam(), mlp, *ops_);
  const MlpWeights view = forms.int8.view(forms.to.data());
  expect_is_near(view.gate, mlp.gate);
  expect_is_near(view.up, mlp.up);
  expect_is_near(view.down, mlp.down);
}

TEST_P(QuantizeTest, PaddingIsZero) {
  const auto [hidden, intermediate] = GetParam();
  const TestMlp mlp(hidden, intermediate, 3);
  const TwoForms forms(GetParam(), mlp, *ops_);
  const PackedMatrix gate = forms.int8.view(forms.to.data()).gate;
  for (int64_t row = 0; row < num_row_tiles(intermediate) * kTileRows; ++row) {
    if (row >= intermediate) {
      EXPECT_EQ(gate.scales[row], 0.0f) << row;
    }
    for (int64_t col = 0; col < num_col_tiles(hidden) * kTileCols; ++col) {
      if (row < intermediate && col < hidden) continue;
      ASSERT_EQ(gate.data[tiled_pair_offset(hidden, row, col) / 2 + col % 2], std::byte{0})
          << row << ", " << col;
    }
  }
}

TEST_P(QuantizeTest, BothBackendsMakeTheSameBlock) {
  const TestMlp mlp(GetParam().hidden, GetParam().intermediate, 3);
  const TwoForms fast(GetParam(), mlp, *ops_);
  const TwoForms reference(GetParam(), mlp, *make_reference_ops(1));
  ASSERT_EQ(fast.to.num_bytes(), reference.to.num_bytes());
  EXPECT_EQ(0, std::memcmp(fast.to.data(), reference.to.data(), fast.to.num_bytes()));
}

INSTANTIATE_TEST_SUITE_P(
    Sizes,
    QuantizeTest,
    ::testing::Values(Size{1, 1}, Size{16, 32}, Size{33, 17}, Size{64, 48}, Size{100, 7}));

// One expert whose gate has the given first row; all else is random.
class QuantizeRowTest : public ::testing::Test {
 protected:
  static constexpr Size kSize = {.hidden = 40, .intermediate = 20};

  PackedMatrix gate_with_row(const std::vector<float>& row) {
    TestMlp mlp(kSize.hidden, kSize.intermediate, 8);
    for (size_t col = 0; col < row.size(); ++col) mlp.gate.values[col] = to_bf16(row[col]);
    pack_rows_tiled(mlp.gate.packed.data(), kSize.intermediate, kSize.hidden, 0, kSize.intermediate,
                    mlp.gate.values.data());
    forms_ = std::make_unique<TwoForms>(kSize, mlp, *make_cpu_ops(1));
    return forms_->int8.view(forms_->to.data()).gate;
  }
  std::vector<float> first_row(const PackedMatrix& matrix) {
    std::vector<float> values(kSize.hidden * kSize.intermediate);
    dequantize(matrix, values.data());
    values.resize(kSize.hidden);
    return values;
  }

  std::unique_ptr<TwoForms> forms_;
};

TEST_F(QuantizeRowTest, ARowOfZerosHasScaleZero) {
  const PackedMatrix gate = gate_with_row(std::vector<float>(kSize.hidden, 0.0f));
  EXPECT_EQ(gate.scales[0], 0.0f);
  EXPECT_EQ(first_row(gate), std::vector<float>(kSize.hidden, 0.0f));
  EXPECT_GT(gate.scales[1], 0.0f);
}

TEST_F(QuantizeRowTest, WholeMultiplesOfAScaleComeBackAsTheyWere) {
  std::vector<float> row(kSize.hidden);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i) - 20.0f;
  row[0] = -127;
  EXPECT_EQ(first_row(gate_with_row(row)), row);
}

TEST_F(QuantizeRowTest, TiesGoToTheEvenMultiple) {
  std::vector<float> row(kSize.hidden, 0.0f);
  row[0] = 127;  // a scale of 1
  row[1] = 0.5f, row[2] = 1.5f, row[3] = 2.5f, row[4] = -0.5f, row[5] = -1.5f;
  const std::vector<float> values = first_row(gate_with_row(row));
  EXPECT_EQ(std::vector<float>(values.begin() + 1, values.begin() + 6),
            (std::vector<float>{0, 2, 2, 0, -2}));
}

TEST_F(QuantizeRowTest, TheSmallestWeightsStayWithinHalfAScale) {
  std::vector<float> row(kSize.hidden, 0.0f);
  row[0] = 0x1p-133f;  // the smallest of bf16
  row[1] = -0x1p-130f;
  const PackedMatrix gate = gate_with_row(row);
  const std::vector<float> values = first_row(gate);
  for (int i = 0; i < 2; ++i) EXPECT_LE(std::abs(values[i] - row[i]), gate.scales[0] * 0.5f) << i;
}

TEST_F(QuantizeRowTest, ARowThatIsNotFiniteBecomesNaNAndNoOther) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    std::vector<float> row(kSize.hidden, 1.0f);
    row[3] = bad;
    const PackedMatrix gate = gate_with_row(row);
    EXPECT_FALSE(std::isfinite(gate.scales[0]));
    EXPECT_TRUE(std::isfinite(gate.scales[1]));
    // What a product with it is: a whole number times such a scale, or zero times infinity.
    for (const float value : first_row(gate)) EXPECT_FALSE(std::isfinite(value));
  }
}

TEST(QuantizeExpert, DequantizedBf16IsWhatWasPacked) {
  const TestMatrix matrix(33, 17, 4);
  std::vector<float> values(33 * 17);
  dequantize(matrix.view(), values.data());
  for (int64_t i = 0; i < 33 * 17; ++i) EXPECT_EQ(values[i], to_float(matrix.values[i]));
}

TEST(QuantizeExpert, ABlockIsAboutHalfAsLong) {
  const auto ops = make_cpu_ops(1);
  const ExpertLayout bf16 = expert_layout(*ops, 2048, 768);
  const ExpertLayout int8 = expert_layout(*ops, 2048, 768, ExpertFormat::kInt8);
  EXPECT_EQ(int8.block_bytes, bf16.block_bytes / 2 + (768 + 768 + 2048) * 4);
}

TEST(QuantizeExpert, RefusesLayoutsThatDoNotBelongTogether) {
  const auto ops = make_cpu_ops(1);
  const ExpertLayout bf16 = expert_layout(*ops, 64, 32);
  const ExpertLayout int8 = expert_layout(*ops, 64, 32, ExpertFormat::kInt8);
  const ExpertLayout other = expert_layout(*ops, 64, 48, ExpertFormat::kInt8);
  Buffer from = allocate_host(bf16.block_bytes);
  Buffer to = allocate_host(other.block_bytes + 64);
  EXPECT_THROW(ops->quantize_expert(bf16, from.data(), other, to.data()), std::logic_error);
  EXPECT_THROW(ops->quantize_expert(bf16, from.data(), bf16, to.data()), std::logic_error);
  EXPECT_THROW(ops->quantize_expert(int8, from.data(), int8, to.data()), std::logic_error);
  EXPECT_THROW(ops->quantize_expert(bf16, from.data(), int8, to.data() + 4), std::logic_error);
}

}  // namespace
}  // namespace augur::cpu
