#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <tuple>

#include "kernels/cpu/linear.h"
#include "kernels/cpu/rows.h"
#include "tests/kernels/available_isas.h"
#include "tests/kernels/gemm_fixture.h"

namespace augur::cpu {
namespace {

class CpuGemmTest : public ::testing::TestWithParam<Isa> {
 protected:
  // Results of linear for x [num_tokens, cols], computed with just the scratch it asks for.
  template <typename Out>
  std::vector<Out> run_linear(const TestMatrix& weight,
                              const std::vector<Bf16>& x,
                              const float* bias,
                              int64_t row_padding = 0) {
    const int64_t num_tokens = static_cast<int64_t>(x.size()) / weight.num_cols;
    const int64_t stride = weight.num_rows + row_padding;
    std::vector<Out> out(num_tokens * stride, filler<Out>());
    Buffer scratch = allocate_host(linear_scratch_bytes(num_tokens, weight.num_cols, GetParam()));
    constexpr DType kOut = sizeof(Out) == 2 ? DType::kBF16 : DType::kF32;
    LinearArgs args;
    args.x = dense(const_cast<Bf16*>(x.data()), DType::kBF16, num_tokens, weight.num_cols);
    args.weight = weight.view();
    args.bias = bias;
    args.out = {out.data(), kOut, num_tokens, weight.num_rows, stride};
    linear(args, GetParam(), pool_, {scratch.data(), static_cast<size_t>(scratch.num_bytes())});
    return out;
  }
  template <typename Out>
  static Out filler() {
    if constexpr (sizeof(Out) == 2) {
      return Bf16{0x4242};
    } else {
      return 12345.0f;
    }
  }

  std::vector<float> run_mlp(const TestMlp& weights, const std::vector<Bf16>& x) {
    const int64_t hidden_size = weights.down.num_rows;
    const int64_t num_tokens = static_cast<int64_t>(x.size()) / hidden_size;
    std::vector<float> out(num_tokens * hidden_size);
    Buffer scratch = allocate_host(
        mlp_scratch_bytes(num_tokens, hidden_size, weights.gate.num_rows, GetParam()));
    MlpArgs args;
    args.x = dense(const_cast<Bf16*>(x.data()), DType::kBF16, num_tokens, hidden_size);
    args.weights = weights.view();
    args.out = dense(out.data(), DType::kF32, num_tokens, hidden_size);
    mlp(args, GetParam(), pool_, {scratch.data(), static_cast<size_t>(scratch.num_bytes())});
    return out;
  }

  WorkerPool pool_{2};
};

TEST_P(CpuGemmTest, LinearMatchesPlainLoops) {
  const int64_t shapes[][2] = {{1, 1},  {16, 32},  {17, 33},   {64, 31},
                               {5, 64}, {96, 100}, {48, 1025}, {130, 96}};
  for (const auto& [num_rows, num_cols] : shapes) {
    const TestMatrix weight(num_rows, num_cols, 7);
    const std::vector<float> bias(num_rows, 0.5f);
    for (int64_t num_tokens : {1, 2, 3, 5, 7, 16, 17, 33, 70}) {
      const std::vector<Bf16> x = random_bf16(num_tokens * num_cols, 11);
      for (bool has_bias : {false, true}) {
        const std::vector<float> out =
            run_linear<float>(weight, x, has_bias ? bias.data() : nullptr);
        for (int64_t t = 0; t < num_tokens; ++t) {
          for (int64_t row = 0; row < num_rows; ++row) {
            Expected expected =
                dot(weight, row, [&](int64_t k) { return to_float(x[t * num_cols + k]); });
            if (has_bias) expected.value += 0.5;
            ASSERT_NEAR(out[t * num_rows + row], expected.value, f32_tolerance(expected) + 1e-7)
                << num_rows << " x " << num_cols << ", token " << t << " of " << num_tokens;
          }
        }
      }
    }
  }
}

TEST_P(CpuGemmTest, LinearIntoBf16IsTheRoundedFloat) {
  const TestMatrix weight(40, 70, 3);
  const std::vector<float> bias = {std::vector<float>(40, -0.25f)};
  const std::vector<Bf16> x = random_bf16(9 * 70, 5);
  const std::vector<float> exact = run_linear<float>(weight, x, bias.data());
  const std::vector<Bf16> rounded = run_linear<Bf16>(weight, x, bias.data());
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_EQ(rounded[i].bits, to_bf16(exact[i]).bits) << i;
  }
}

TEST_P(CpuGemmTest, LinearWritesNothingBesideItsColumns) {
  const TestMatrix weight(21, 40, 3);
  const std::vector<Bf16> x = random_bf16(18 * 40, 5);
  const std::vector<float> wide = run_linear<float>(weight, x, nullptr, /*row_padding=*/9);
  const std::vector<Bf16> wide_bf16 = run_linear<Bf16>(weight, x, nullptr, /*row_padding=*/9);
  for (int64_t t = 0; t < 18; ++t) {
    for (int64_t col = 21; col < 30; ++col) {
      EXPECT_EQ(wide[t * 30 + col], filler<float>());
      EXPECT_EQ(wide_bf16[t * 30 + col].bits, filler<Bf16>().bits);
    }
  }
}

TEST_P(CpuGemmTest, RowsOfLinearDoNotDependOnHowManyThereAre) {
  // Longer than one block of columns and than one block of tokens.
  constexpr int64_t kRows = 83, kCols = 1100, kTokens = 150;
  const TestMatrix weight(kRows, kCols, 3);
  const std::vector<Bf16> x = random_bf16(kTokens * kCols, 5);
  const std::vector<float> all = run_linear<float>(weight, x, nullptr);
  for (int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 31, 32, 64, 129}) {
    const int64_t first = kTokens - count;
    const std::vector<Bf16> part(x.begin() + first * kCols, x.end());
    const std::vector<float> some = run_linear<float>(weight, part, nullptr);
    EXPECT_EQ(0, std::memcmp(some.data(), all.data() + first * kRows, some.size() * 4)) << count;
  }
}

TEST_P(CpuGemmTest, RowsOfLargeOutputsAreThoseOfSmallOnes) {
  // 3 MiB from one thread: more than the L2 of a core, which may be written another way. The last
  // rows of weights and the last tokens fill no whole tile.
  WorkerPool one_thread(1);
  constexpr int64_t kRows = 8192 + 7, kStride = 8192 + 16, kCols = 40, kTokens = 32 * 3 + 3;
  const TestMatrix weight(kRows, kCols, 3);
  std::vector<Bf16> x = random_bf16(kTokens * kCols, 5);
  Buffer out = allocate_host(kTokens * kStride * 4);
  Buffer scratch = allocate_host(linear_scratch_bytes(kTokens, kCols, GetParam()));
  LinearArgs args;
  args.x = dense(x.data(), DType::kBF16, kTokens, kCols);
  args.weight = weight.view();
  args.out = {out.data(), DType::kF32, kTokens, kRows, kStride};
  linear(args, GetParam(), one_thread, {scratch.data(), static_cast<size_t>(scratch.num_bytes())});
  for (int64_t t = 0; t < kTokens; ++t) {
    const std::vector<Bf16> token(x.begin() + t * kCols, x.begin() + (t + 1) * kCols);
    const std::vector<float> expected = run_linear<float>(weight, token, nullptr);
    const float* const row = out.as<float>() + t * kStride;
    ASSERT_EQ(0, std::memcmp(row, expected.data(), kRows * 4)) << t;
    ASSERT_TRUE(std::all_of(row + kRows, row + kStride, [](float v) { return v == 0; })) << t;
  }
}

TEST_P(CpuGemmTest, NanReachesOnlyItsOwnRow) {
  const TestMatrix weight(20, 45, 3);
  std::vector<Bf16> x = random_bf16(8 * 45, 5);
  x[3 * 45 + 44] = to_bf16(NAN);
  const std::vector<float> out = run_linear<float>(weight, x, nullptr);
  for (int64_t i = 0; i < 8 * 20; ++i) EXPECT_EQ(std::isnan(out[i]), i / 20 == 3) << i;
}

TEST_P(CpuGemmTest, NoTokensAreNoWork) {
  const TestMatrix weight(16, 32, 3);
  EXPECT_TRUE(run_linear<float>(weight, {}, nullptr).empty());
}

TEST_P(CpuGemmTest, MlpMatchesPlainLoops) {
  const int64_t shapes[][2] = {{32, 16}, {64, 48}, {33, 21}, {256, 64}, {70, 100}};
  for (const auto& [hidden_size, intermediate_size] : shapes) {
    const TestMlp weights(hidden_size, intermediate_size, 20);
    for (int64_t num_tokens : {1, 2, 6, 17, 40}) {
      const std::vector<Bf16> x = random_bf16(num_tokens * hidden_size, 9);
      const std::vector<float> out = run_mlp(weights, x);
      for (int64_t t = 0; t < num_tokens; ++t) {
        const std::vector<Expected> expected = weights.apply(x.data() + t * hidden_size);
        for (int64_t i = 0; i < hidden_size; ++i) {
          ASSERT_NEAR(out[t * hidden_size + i], expected[i].value, gated_tolerance(expected[i]))
              << hidden_size << " x " << intermediate_size << ", token " << t;
        }
      }
    }
  }
}

TEST_P(CpuGemmTest, RowsOfMlpDoNotDependOnHowManyThereAre) {
  constexpr int64_t kHidden = 160, kTokens = 70;
  const TestMlp weights(kHidden, 112, 20);
  const std::vector<Bf16> x = random_bf16(kTokens * kHidden, 9);
  const std::vector<float> all = run_mlp(weights, x);
  for (int64_t count : {1, 2, 5, 9, 16, 20, 33}) {
    const int64_t first = kTokens - count;
    const std::vector<float> some =
        run_mlp(weights, std::vector<Bf16>(x.begin() + first * kHidden, x.end()));
    EXPECT_EQ(0, std::memcmp(some.data(), all.data() + first * kHidden, some.size() * 4)) << count;
  }
}

TEST_P(CpuGemmTest, SiluSaturatesInsteadOfOverflowing) {
  // gate is 1 x, up is the constant 1: out is silu(x), for x far outside the range of e^x.
  const int64_t hidden_size = 2;
  TestMlp weights(hidden_size, 1, 20);
  const std::vector<std::vector<Bf16>> matrices = {
      {to_bf16(1), to_bf16(0)}, {to_bf16(0), to_bf16(1)}, {to_bf16(1), to_bf16(0)}};
  for (auto [matrix, values] : {std::pair{&weights.gate, matrices[0]},
                                {&weights.up, matrices[1]},
                                {&weights.down, matrices[2]}}) {
    pack_rows_tiled(matrix->packed.data(), matrix->num_rows, matrix->num_cols, 0, matrix->num_rows,
                    values.data());
  }
  for (float value : {-30000.0f, -90.0f, -20.0f, -1.0f, 0.0f, 1.0f, 20.0f, 90.0f, 30000.0f}) {
    const std::vector<float> out = run_mlp(weights, {to_bf16(value), to_bf16(1)});
    const double x = to_float(to_bf16(value));
    const double expected = x / (1 + std::exp(-x));
    EXPECT_NEAR(out[0], expected, std::abs(expected) / 256 + 1e-30) << value;
  }
}

TEST_P(CpuGemmTest, RefusesLessScratchThanItNeeds) {
  const TestMatrix weight(16, 64, 3);
  std::vector<Bf16> x = random_bf16(40 * 64, 5);
  std::vector<float> out(40 * 16);
  Buffer scratch = allocate_host(linear_scratch_bytes(16, 64, GetParam()));
  LinearArgs args;
  args.x = dense(x.data(), DType::kBF16, 40, 64);
  args.weight = weight.view();
  args.out = dense(out.data(), DType::kF32, 40, 16);
  EXPECT_THROW(
      linear(args, GetParam(), pool_, {scratch.data(), static_cast<size_t>(scratch.num_bytes())}),
      std::logic_error);
}

INSTANTIATE_TEST_SUITE_P(Isas, CpuGemmTest, ::testing::ValuesIn(available_isas()), isa_test_name);

TEST(CpuRows, EmbedReadsRowsOfThePackedTable) {
  WorkerPool pool(2);
  for (int64_t num_cols : {1, 31, 32, 65}) {
    const TestMatrix table(37, num_cols, 3);
    std::vector<int32_t> token_ids;
    for (int32_t id = 36; id >= 0; --id) token_ids.push_back(id);
    std::vector<float> out(37 * num_cols);
    embed({.table = table.view(),
           .token_ids = token_ids.data(),
           .out = dense(out.data(), DType::kF32, 37, num_cols)},
          pool);
    for (int64_t i = 0; i < 37; ++i) {
      for (int64_t col = 0; col < num_cols; ++col) {
        ASSERT_EQ(out[i * num_cols + col], table.at(36 - i, col)) << i << ", " << col;
      }
    }
  }
}

TEST(CpuRows, EmbedRefusesIdsOutsideTheVocabulary) {
  WorkerPool pool(1);
  const TestMatrix table(4, 8, 3);
  std::vector<float> out(8);
  for (int32_t id : {-1, 4}) {
    EXPECT_THROW(
        embed(
            {.table = table.view(), .token_ids = &id, .out = dense(out.data(), DType::kF32, 1, 8)},
            pool),
        std::logic_error);
  }
}

TEST(CpuRows, GatherCopiesRowsOfEitherType) {
  WorkerPool pool(2);
  const std::vector<int32_t> rows = {4, 0, 4};
  std::vector<float> x(5 * 6);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  std::vector<float> out(3 * 6);
  gather_rows(
      {dense(x.data(), DType::kF32, 5, 6), rows.data(), dense(out.data(), DType::kF32, 3, 6)},
      pool);
  for (int64_t i = 0; i < 18; ++i) EXPECT_EQ(out[i], x[rows[i / 6] * 6 + i % 6]);

  std::vector<Bf16> x_bf16 = random_bf16(5 * 6, 1);
  std::vector<Bf16> out_bf16(3 * 4);
  // Four columns of rows that are six apart.
  gather_rows({{x_bf16.data(), DType::kBF16, 5, 4, 6},
               rows.data(),
               dense(out_bf16.data(), DType::kBF16, 3, 4)},
              pool);
  for (int64_t i = 0; i < 12; ++i)
    EXPECT_EQ(out_bf16[i].bits, x_bf16[rows[i / 4] * 6 + i % 4].bits);
}

}  // namespace
}  // namespace augur::cpu
