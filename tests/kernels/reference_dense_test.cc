// Embedding, norms, projections and experts of the reference against plain loops in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/reference_kernels.h"
#include "kernels/cpu/reference_ops.h"
#include "tests/kernels/ops_contract.h"

namespace augur {
namespace {

using contract::Arena;
using contract::contract_limits;
using contract::random_order;
using contract::random_values;
using contract::rows_are_near;

// Float32 sums of up to 500 terms in one order against double: some 1e-6 of the row's size.
constexpr float kTolerance = 1e-5f;

class ReferenceDenseTest : public ::testing::Test {
 protected:
  void SetUp() override { ops_->reserve(contract_limits()); }

  std::unique_ptr<Ops> ops_ = make_reference_ops(2);
  Arena arena_{*ops_};
};

using Matrix = std::vector<float>;

// x [num_rows, in] times weight [out, in], transposed.
std::vector<double> product(const std::vector<double>& x, const Matrix& weight, int64_t in) {
  const auto num_rows = static_cast<int64_t>(x.size()) / in;
  const auto num_outputs = static_cast<int64_t>(weight.size()) / in;
  std::vector<double> out(num_rows * num_outputs);
  for (int64_t r = 0; r < num_rows; ++r) {
    for (int64_t o = 0; o < num_outputs; ++o) {
      for (int64_t i = 0; i < in; ++i) {
        out[r * num_outputs + o] += x[r * in + i] * weight[o * in + i];
      }
    }
  }
  return out;
}

struct PlainMlp {
  int64_t hidden, intermediate;
  Matrix gate, up, down;

  PlainMlp(int64_t hidden, int64_t intermediate, uint64_t seed)
      : hidden(hidden),
        intermediate(intermediate),
        gate(random_values(hidden * intermediate, seed)),
        up(random_values(hidden * intermediate, seed + 1)),
        down(random_values(hidden * intermediate, seed + 2)) {}

  std::vector<double> operator()(const std::vector<double>& x) const {
    std::vector<double> inner = product(x, gate, hidden);
    const std::vector<double> ups = product(x, up, hidden);
    for (size_t i = 0; i < inner.size(); ++i) {
      inner[i] = inner[i] / (1 + std::exp(-inner[i])) * ups[i];
    }
    return product(inner, down, intermediate);
  }

  MlpWeights pack(Arena& arena) const {
    return {arena.pack(MatrixUse::kMlp, gate, intermediate, hidden),
            arena.pack(MatrixUse::kMlp, up, intermediate, hidden),
            arena.pack(MatrixUse::kMlp, down, hidden, intermediate)};
  }
};

std::vector<double> widen(const Matrix& values) {
  return {values.begin(), values.end()};
}
Matrix narrow(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

TEST_F(ReferenceDenseTest, LinearMultipliesAndAddsTheBias) {
  for (const auto& [num_rows, in, out] : {std::array<int64_t, 3>{0, 5, 5},
                                          {1, 1, 1},
                                          {3, 31, 17},
                                          {8, 32, 16},
                                          {9, 500, 33},
                                          {30, 65, 100}}) {
    const Matrix x = random_values(num_rows * in, 1);
    const Matrix weight = random_values(out * in, 2);
    const Matrix bias = random_values(out, 3);
    for (const bool has_bias : {false, true}) {
      std::vector<double> expected = product(widen(x), weight, in);
      for (size_t i = 0; has_bias && i < expected.size(); ++i) expected[i] += bias[i % out];
      LinearArgs args;
      args.x = arena_.activations(x, num_rows, in);
      args.weight = arena_.pack(MatrixUse::kProjection, weight, out, in);
      args.bias = has_bias ? arena_.copy(bias) : nullptr;
      args.out = arena_.result(num_rows, out, DType::kF32);
      ops_->linear(args);
      EXPECT_TRUE(rows_are_near(arena_.read(args.out), narrow(expected), out, kTolerance))
          << num_rows << " x " << in << " x " << out;
    }
  }
}

TEST_F(ReferenceDenseTest, RefusesShapesThatDoNotFit) {
  LinearArgs args;
  args.x = arena_.result(2, 8, DType::kF32);
  args.weight = arena_.pack(MatrixUse::kProjection, random_values(4 * 8, 2), 4, 8);
  args.out = arena_.result(2, 5, DType::kF32);
  EXPECT_THROW(ops_->linear(args), std::logic_error);
  args.out = arena_.result(2, 4, DType::kBF16);
  EXPECT_THROW(ops_->linear(args), std::logic_error);
  args.out = arena_.result(2, 4, DType::kF32);
  args.x = arena_.result(2, 7, DType::kF32);
  EXPECT_THROW(ops_->linear(args), std::logic_error);

  // More rows than reserve() was told of.
  const int64_t too_many = contract_limits().max_tokens + 1;
  const PlainMlp mlp(16, 16, 4);
  const MlpArgs mlp_args = {arena_.result(too_many, 16, DType::kF32), mlp.pack(arena_),
                            arena_.result(too_many, 16, DType::kF32)};
  EXPECT_THROW(ops_->mlp(mlp_args), std::logic_error);
}

TEST_F(ReferenceDenseTest, RefusesTokensOutsideTheTable) {
  EmbedArgs args;
  args.table = arena_.pack(MatrixUse::kProjection, random_values(4 * 8, 2), 4, 8);
  args.out = arena_.result(1, 8, DType::kF32);
  for (const int32_t id : {-1, 4}) {
    args.token_ids = arena_.copy(std::vector<int32_t>{id});
    EXPECT_THROW(ops_->embed(args), std::logic_error);
  }
}

TEST_F(ReferenceDenseTest, AddRmsNormAddsThenNormalises) {
  for (const auto& [num_rows, num_cols] : {std::pair<int64_t, int64_t>{0, 4}, {1, 1}, {3, 37}}) {
    const Matrix hidden = random_values(num_rows * num_cols, 5);
    const Matrix delta = random_values(num_rows * num_cols, 6);
    const Matrix weight = random_values(num_cols, 7);
    constexpr float kEps = 0.01f;  // large enough to show where it is added
    std::vector<double> sum(hidden.size()), expected(hidden.size());
    for (int64_t r = 0; r < num_rows; ++r) {
      double squares = 0;
      for (int64_t i = r * num_cols; i < (r + 1) * num_cols; ++i) {
        sum[i] = double{hidden[i]} + delta[i];
        squares += sum[i] * sum[i];
      }
      for (int64_t i = r * num_cols; i < (r + 1) * num_cols; ++i) {
        expected[i] = sum[i] / std::sqrt(squares / static_cast<double>(num_cols) + kEps) *
                      weight[i - r * num_cols];
      }
    }
    AddRmsNormArgs args;
    args.hidden = arena_.tensor(hidden, num_rows, num_cols, DType::kF32);
    args.delta = arena_.tensor(delta, num_rows, num_cols, DType::kF32);
    args.weight = arena_.copy(weight);
    args.eps = kEps;
    args.out = arena_.result(num_rows, num_cols, DType::kF32);
    args.out_f32 = arena_.result(num_rows, num_cols, DType::kF32);
    ops_->add_rms_norm(args);
    EXPECT_TRUE(rows_are_near(arena_.read(args.hidden), narrow(sum), num_cols, 1e-6f));
    EXPECT_TRUE(rows_are_near(arena_.read(args.out), narrow(expected), num_cols, 1e-6f));
    EXPECT_EQ(arena_.read(args.out_f32), arena_.read(args.out));
  }
}

TEST_F(ReferenceDenseTest, MlpGatesAndProjects) {
  for (const auto& [num_rows, hidden, intermediate] :
       {std::array<int64_t, 3>{0, 8, 8}, {1, 1, 1}, {5, 33, 18}, {300, 24, 40}}) {
    const PlainMlp mlp(hidden, intermediate, 8);
    const Matrix x = random_values(num_rows * hidden, 9);
    const MlpArgs args = {arena_.activations(x, num_rows, hidden), mlp.pack(arena_),
                          arena_.result(num_rows, hidden, DType::kF32)};
    ops_->mlp(args);
    EXPECT_TRUE(rows_are_near(arena_.read(args.out), narrow(mlp(widen(x))), hidden, kTolerance));
  }
}

TEST_F(ReferenceDenseTest, MoeSumsTheChosenExpertsAndTheSharedOne) {
  struct Case {
    int64_t num_tokens, hidden, intermediate;
    int num_experts, top_k;
    int64_t shared_intermediate;
  };
  for (const Case& c : {Case{0, 8, 8, 2, 1, 0}, Case{1, 16, 8, 1, 1, 0}, Case{7, 33, 17, 6, 3, 0},
                        Case{20, 40, 24, 5, 2, 70}, Case{300, 16, 16, 4, 4, 16}}) {
    std::vector<PlainMlp> experts;
    for (int e = 0; e < c.num_experts; ++e) {
      experts.emplace_back(c.hidden, c.intermediate, 100 + 3 * e);
    }
    const PlainMlp shared(c.hidden, std::max<int64_t>(c.shared_intermediate, 1), 50);
    const Matrix x = random_values(c.num_tokens * c.hidden, 10);
    const Matrix weights = random_values(c.num_tokens * c.top_k, 11);
    std::vector<int32_t> choices;
    std::vector<double> expected;
    for (int64_t t = 0; t < c.num_tokens; ++t) {
      const std::vector<double> row(x.begin() + t * c.hidden, x.begin() + (t + 1) * c.hidden);
      std::vector<double> sum =
          c.shared_intermediate > 0 ? shared(row) : std::vector<double>(c.hidden);
      const std::vector<int32_t> order = random_order(c.num_experts, t);
      for (int k = 0; k < c.top_k; ++k) {
        choices.push_back(order[k]);
        const std::vector<double> out = experts[order[k]](row);
        for (int64_t i = 0; i < c.hidden; ++i) sum[i] += weights[t * c.top_k + k] * out[i];
      }
      expected.insert(expected.end(), sum.begin(), sum.end());
    }

    const ExpertLayout layout = expert_layout(*ops_, c.hidden, c.intermediate);
    std::byte* const slots = arena_.zeros(c.num_experts * layout.block_bytes);
    std::vector<int32_t> slot_of_expert;
    for (int e = 0; e < c.num_experts; ++e) {
      slot_of_expert.push_back(c.num_experts - 1 - e);
      std::byte* const block = slots + slot_of_expert.back() * layout.block_bytes;
      arena_.pack_into(MatrixUse::kMlp, block, experts[e].gate, c.intermediate, c.hidden);
      arena_.pack_into(MatrixUse::kMlp, block + layout.up_offset, experts[e].up, c.intermediate,
                       c.hidden);
      arena_.pack_into(MatrixUse::kMlp, block + layout.down_offset, experts[e].down, c.hidden,
                       c.intermediate);
    }
    MoeArgs args;
    args.x = arena_.activations(x, c.num_tokens, c.hidden);
    args.experts = arena_.copy(choices);
    args.weights = arena_.copy(weights);
    args.top_k = c.top_k;
    args.table = {slots, layout, arena_.copy(slot_of_expert), c.num_experts};
    if (c.shared_intermediate > 0) args.shared = shared.pack(arena_);
    args.out = arena_.result(c.num_tokens, c.hidden, DType::kF32);
    ops_->moe(args);
    EXPECT_TRUE(rows_are_near(arena_.read(args.out), narrow(expected), c.hidden, kTolerance))
        << c.num_tokens << " tokens";
    if (c.num_tokens == 0) continue;
    choices[0] = c.num_experts;
    args.experts = arena_.copy(choices);
    EXPECT_THROW(ops_->moe(args), std::logic_error);
  }
}

TEST_F(ReferenceDenseTest, GatherRowsRefusesRowsThatAreNotThere) {
  GatherRowsArgs args;
  args.x = arena_.result(3, 4, DType::kF32);
  args.rows = arena_.copy(std::vector<int32_t>{3});
  args.out = arena_.result(1, 4, DType::kF32);
  EXPECT_THROW(ops_->gather_rows(args), std::logic_error);
}

TEST_F(ReferenceDenseTest, WorkspaceGrowsWithTheLimitsAndRefusesOverflow) {
  StepLimits limits = contract_limits();
  const int64_t before = ops_->workspace_bytes(limits);
  limits.max_context += 1000;
  EXPECT_EQ(ops_->workspace_bytes(limits), before + 2 * 4000);  // a score per position and thread
  for (const int64_t absurd : {int64_t{1} << 60, int64_t{1} << 40, int64_t{-1}}) {
    limits = contract_limits();
    limits.hidden_size = limits.num_heads = limits.head_dim = limits.top_k = absurd;
    EXPECT_THROW(ops_->workspace_bytes(limits), std::logic_error);
  }
}

TEST_F(ReferenceDenseTest, SaysWhatItIs) {
  EXPECT_EQ(ops_->description(), "reference, 2 threads");
  EXPECT_EQ(make_reference_ops(1)->description(), "reference, 1 thread");
  EXPECT_EQ(ops_->activation_dtype(), DType::kF32);
}

class ReferenceKernelsTest : public ::testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    if (!cpu::has_isa(GetParam())) GTEST_SKIP() << "not on this machine";
  }
};

TEST_P(ReferenceKernelsTest, AgreeWithPlainLoopsAtEveryLength) {
  const cpu::ReferenceKernels& kernels = cpu::reference_kernels(GetParam());
  const Matrix a = random_values(64 * 70, 12);
  const Matrix b = random_values(64 * 70, 13);
  for (const int64_t n : {0, 1, 15, 16, 17, 33, 64}) {
    double dot = 0;
    for (int64_t i = 0; i < n; ++i) dot += double{a[i]} * b[i];
    EXPECT_NEAR(kernels.dot(a.data(), b.data(), n), dot, 1e-5);

    // Scores of n keys of 20 dimensions, 70 positions apart; then n values of 37 dimensions.
    Matrix scores(n + 1, 9.0f);
    kernels.score_keys(a.data(), 20, b.data(), 70, n, 0.5f, scores.data());
    for (int64_t p = 0; p < n; ++p) {
      double score = 0;
      for (int64_t d = 0; d < 20; ++d) score += double{a[d]} * b[d * 70 + p];
      EXPECT_NEAR(scores[p], 0.5 * score, 1e-5);
    }
    EXPECT_EQ(scores[n], 9.0f);
    Matrix out(38, 9.0f);
    kernels.add_values(a.data(), n, b.data(), 37, out.data());
    for (int64_t d = 0; d < 37; ++d) {
      double sum = 9;
      for (int64_t p = 0; p < n; ++p) sum += double{a[p]} * b[p * 37 + d];
      EXPECT_NEAR(out[d], sum, 1e-5);
    }
    EXPECT_EQ(out[37], 9.0f);
  }
  for (int64_t num_rows = 1; num_rows <= cpu::kProductRows; ++num_rows) {
    std::vector<const float*> rows;
    for (int64_t r = 0; r < num_rows; ++r) rows.push_back(a.data() + r * 50);
    Matrix out(num_rows * 16);
    kernels.panel_product(b.data(), 45, rows.data(), num_rows, out.data());
    for (int64_t i = 0; i < num_rows * 16; ++i) {
      double sum = 0;
      for (int64_t c = 0; c < 45; ++c) sum += double{rows[i / 16][c]} * b[c * 16 + i % 16];
      EXPECT_NEAR(out[i], sum, 1e-5) << num_rows;
    }
  }
}

TEST_P(ReferenceKernelsTest, ARowIsTheSameBitsAloneAndAmongEight) {
  const cpu::ReferenceKernels& kernels = cpu::reference_kernels(GetParam());
  constexpr int64_t kCols = 333;
  const Matrix x = random_values(cpu::kProductRows * kCols, 14);
  const Matrix panel = random_values(kCols * 16, 15);
  std::vector<const float*> rows;
  for (int64_t r = 0; r < cpu::kProductRows; ++r) rows.push_back(x.data() + r * kCols);
  Matrix together(cpu::kProductRows * 16);
  kernels.panel_product(panel.data(), kCols, rows.data(), cpu::kProductRows, together.data());
  for (int64_t r = 0; r < cpu::kProductRows; ++r) {
    Matrix alone(16);
    kernels.panel_product(panel.data(), kCols, &rows[r], 1, alone.data());
    EXPECT_TRUE(
        contract::are_identical(alone, std::span<const float>(together).subspan(r * 16, 16)));
  }
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         ReferenceKernelsTest,
                         ::testing::Values(cpu::Isa::kPortable, cpu::Isa::kAvx2, cpu::Isa::kAvx512),
                         [](const auto& info) { return std::string(cpu::isa_name(info.param)); });

}  // namespace
}  // namespace augur
