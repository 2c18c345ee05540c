// Embedding, norm, projections, MLP, gathering, log-probabilities and sampling.
#include <array>
#include <tuple>

#include "tests/kernels/ops_contract.h"

namespace augur::contract {
namespace {

struct RowRange {
  int64_t first;
  int64_t count;
};

// Counts below, at and above the tiles that kernels are likely to have, starts off their grid.
constexpr std::array<RowRange, 10> kRanges = {RowRange{0, 1}, {77, 1}, {129, 1}, {3, 2},  {7, 5},
                                              {0, 16},        {1, 17}, {60, 33}, {0, 64}, {65, 65}};
constexpr int64_t kAllRows = 130;

std::span<const float> row_span(std::span<const float> values, RowRange rows, int64_t num_cols) {
  return values.subspan(rows.first * num_cols, rows.count * num_cols);
}

struct LinearProblem {
  int64_t num_rows, in, out;
  bool has_bias = false;
  bool rounds_out = false;  // out in the activation dtype
  int64_t padding = 0;
};

std::vector<float> run_linear(Ops& ops, const LinearProblem& problem, RowRange rows) {
  const auto& [num_rows, in, out, has_bias, rounds_out, padding] = problem;
  Arena arena(ops);
  const std::vector<float> x = random_values(num_rows * in, 1);
  LinearArgs args;
  args.x = arena.tensor(row_span(x, rows, in), rows.count, in, ops.activation_dtype(), padding);
  args.weight = arena.pack(MatrixUse::kProjection, random_values(out * in, 2), out, in);
  if (has_bias) args.bias = arena.copy(random_values(out, 3));
  args.out =
      arena.result(rows.count, out, rounds_out ? ops.activation_dtype() : DType::kF32, padding);
  ops.linear(args);
  return arena.read(args.out);
}

TEST_P(OpsContract, LinearIsNearTheReference) {
  constexpr std::array<std::pair<int64_t, int64_t>, 7> kShapes = {
      std::pair{1, 1}, {31, 17}, {32, 16}, {64, 48}, {100, 33}, {256, 272}, {480, 130}};
  for (const auto& [in, out] : kShapes) {
    for (const int64_t num_rows : {0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 70, 129}) {
      const bool is_odd = num_rows % 2 == 1;
      LinearProblem problem = {num_rows, in, out, /*has_bias=*/is_odd};
      problem.padding = num_rows % 3 == 1 ? 32 : 0;
      const RowRange all = {0, num_rows};
      SCOPED_TRACE(testing::Message() << num_rows << " rows, " << in << " to " << out);
      EXPECT_TRUE(rows_are_near(run_linear(*ops_, problem, all),
                                run_linear(*reference_, problem, all), out,
                                GetParam().product_tolerance));
      if (ops_->activation_dtype() == DType::kF32) continue;
      problem.rounds_out = true;
      EXPECT_TRUE(rows_are_near(run_linear(*ops_, problem, all),
                                run_linear(*reference_, problem, all), out,
                                GetParam().activation_tolerance));
    }
  }
}

TEST_P(OpsContract, LinearTreatsARowAloneAsInABatch) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{256, 272}, {100, 33}, {512, 16}}) {
    const LinearProblem problem = {kAllRows, in, out, /*has_bias=*/true};
    const std::vector<float> whole = run_linear(*ops_, problem, {0, kAllRows});
    for (const RowRange& rows : kRanges) {
      EXPECT_TRUE(are_same_rows(run_linear(*ops_, problem, rows), row_span(whole, rows, out), out))
          << in << " to " << out << ", " << rows.count << " rows from " << rows.first;
    }
  }
}

struct MlpProblem {
  int64_t num_rows, hidden, intermediate;
};

std::vector<float> run_mlp(Ops& ops, const MlpProblem& problem, RowRange rows) {
  const auto& [num_rows, hidden, intermediate] = problem;
  Arena arena(ops);
  const std::vector<float> x = random_values(num_rows * hidden, 4);
  MlpArgs args;
  args.x = arena.activations(row_span(x, rows, hidden), rows.count, hidden);
  args.weights.gate =
      arena.pack(MatrixUse::kMlp, random_values(intermediate * hidden, 5), intermediate, hidden);
  args.weights.up =
      arena.pack(MatrixUse::kMlp, random_values(intermediate * hidden, 6), intermediate, hidden);
  args.weights.down =
      arena.pack(MatrixUse::kMlp, random_values(hidden * intermediate, 7), hidden, intermediate);
  args.out = arena.result(rows.count, hidden, DType::kF32);
  ops.mlp(args);
  return arena.read(args.out);
}

TEST_P(OpsContract, MlpIsNearTheReference) {
  for (const auto& [hidden, intermediate] :
       {std::pair<int64_t, int64_t>{1, 1}, {33, 17}, {32, 64}, {96, 40}, {256, 384}, {130, 500}}) {
    for (const int64_t num_rows : {0, 1, 2, 7, 16, 33, 130}) {
      const MlpProblem problem = {num_rows, hidden, intermediate};
      EXPECT_TRUE(rows_are_near(run_mlp(*ops_, problem, {0, num_rows}),
                                run_mlp(*reference_, problem, {0, num_rows}), hidden,
                                GetParam().activation_tolerance))
          << num_rows << " rows, " << hidden << " by " << intermediate;
    }
  }
}

TEST_P(OpsContract, MlpTakesAsManyRowsAsWereReserved) {
  const MlpProblem problem = {contract_limits().max_tokens, 64, 96};
  const RowRange all = {0, problem.num_rows};
  EXPECT_TRUE(rows_are_near(run_mlp(*ops_, problem, all), run_mlp(*reference_, problem, all),
                            problem.hidden, GetParam().activation_tolerance));
}

TEST_P(OpsContract, MlpTreatsARowAloneAsInABatch) {
  for (const auto& [hidden, intermediate] : {std::pair<int64_t, int64_t>{256, 320}, {96, 40}}) {
    const MlpProblem problem = {kAllRows, hidden, intermediate};
    const std::vector<float> whole = run_mlp(*ops_, problem, {0, kAllRows});
    for (const RowRange& rows : kRanges) {
      EXPECT_TRUE(
          are_same_rows(run_mlp(*ops_, problem, rows), row_span(whole, rows, hidden), hidden))
          << hidden << " by " << intermediate << ", " << rows.count << " rows from " << rows.first;
    }
  }
}

TEST_P(OpsContract, EmbedCopiesTheRowsOfTheTable) {
  constexpr int64_t kVocab = 53, kHidden = 72;
  const std::vector<float> table = random_values(kVocab * kHidden, 8);
  const std::vector<std::vector<int32_t>> cases = {{}, {52}, {0, 7, 7, 52, 16, 15}};
  for (const std::vector<int32_t>& ids : cases) {
    Arena arena(*ops_);
    EmbedArgs args;
    args.table = arena.pack(MatrixUse::kProjection, table, kVocab, kHidden);
    args.token_ids = arena.copy(ids);
    args.out = arena.result(static_cast<int64_t>(ids.size()), kHidden, DType::kF32);
    ops_->embed(args);
    std::vector<float> expected;
    for (const int32_t id : ids) {
      const std::span<const float> row = row_span(table, {id, 1}, kHidden);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    EXPECT_EQ(arena.read(args.out), expected);
  }
}

struct NormResult {
  std::vector<float> hidden, out, out_f32;
};

NormResult run_norm(Ops& ops, int64_t num_cols, bool has_delta, RowRange rows) {
  Arena arena(ops);
  const std::vector<float> hidden = random_values(kAllRows * num_cols, 9);
  const std::vector<float> delta = random_values(kAllRows * num_cols, 10);
  AddRmsNormArgs args;
  args.hidden = arena.tensor(row_span(hidden, rows, num_cols), rows.count, num_cols, DType::kF32);
  if (has_delta) {
    args.delta = arena.tensor(row_span(delta, rows, num_cols), rows.count, num_cols, DType::kF32);
  }
  args.weight = arena.copy(random_values(num_cols, 11));
  args.eps = 1e-5f;
  args.out = arena.result(rows.count, num_cols, ops.activation_dtype());
  if (has_delta) args.out_f32 = arena.result(rows.count, num_cols, DType::kF32);
  ops.add_rms_norm(args);
  return {arena.read(args.hidden), arena.read(args.out),
          has_delta ? arena.read(args.out_f32) : std::vector<float>()};
}

TEST_P(OpsContract, EmbedLooksUpWhatWasSampled) {
  constexpr int64_t kVocab = 53, kHidden = 72;
  const std::vector<float> table = random_values(kVocab * kHidden, 8);
  Arena arena(*ops_);
  EmbedArgs args;
  args.table = arena.pack(MatrixUse::kProjection, table, kVocab, kHidden);
  args.token_ids = arena.copy(std::vector<int32_t>{~2, 9, ~0, ~2});
  args.sampled_ids = arena.copy(std::vector<int32_t>{4, 50, 31});
  args.out = arena.result(4, kHidden, DType::kF32);
  ops_->embed(args);
  const std::vector<float> out = arena.read(args.out);
  const int32_t expected[] = {31, 9, 4, 31};
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(
        are_identical(row_span(out, {i, 1}, kHidden), row_span(table, {expected[i], 1}, kHidden)))
        << i;
  }
}

TEST_P(OpsContract, AddRmsNormIsNearTheReference) {
  for (const int64_t num_cols : {1, 31, 64, 200, 512}) {
    for (const bool has_delta : {false, true}) {
      for (const int64_t num_rows : {0, 1, 3, 64}) {
        const NormResult actual = run_norm(*ops_, num_cols, has_delta, {0, num_rows});
        const NormResult expected = run_norm(*reference_, num_cols, has_delta, {0, num_rows});
        SCOPED_TRACE(testing::Message() << num_rows << " x " << num_cols);
        EXPECT_TRUE(are_identical(actual.hidden, expected.hidden));
        EXPECT_TRUE(
            rows_are_near(actual.out, expected.out, num_cols, GetParam().activation_tolerance));
        EXPECT_TRUE(rows_are_near(actual.out_f32, expected.out_f32, num_cols,
                                  GetParam().product_tolerance));
      }
    }
  }
}

TEST_P(OpsContract, AddRmsNormTreatsARowAloneAsInABatch) {
  constexpr int64_t kCols = 200;
  const NormResult whole = run_norm(*ops_, kCols, true, {0, kAllRows});
  for (const RowRange& rows : kRanges) {
    const NormResult part = run_norm(*ops_, kCols, true, rows);
    EXPECT_TRUE(are_identical(part.out, row_span(whole.out, rows, kCols)));
    EXPECT_TRUE(are_identical(part.out_f32, row_span(whole.out_f32, rows, kCols)));
  }
}

TEST_P(OpsContract, GatherRowsCopiesRows) {
  constexpr int64_t kRows = 9, kCols = 45;
  const std::vector<float> x = random_values(kRows * kCols, 12);
  for (const DType dtype : {DType::kF32, ops_->activation_dtype()}) {
    Arena arena(*ops_);
    const std::vector<int32_t> rows = {8, 0, 3, 3};
    GatherRowsArgs args;
    args.x = arena.tensor(x, kRows, kCols, dtype);
    args.rows = arena.copy(rows);
    args.out = arena.result(static_cast<int64_t>(rows.size()), kCols, dtype);
    ops_->gather_rows(args);
    const std::vector<float> out = arena.read(args.out);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_TRUE(are_identical(row_span(out, {static_cast<int64_t>(i), 1}, kCols),
                                row_span(x, {rows[i], 1}, kCols)));
    }
  }
}

std::vector<float> spread_logits(int64_t num_rows, int64_t vocab_size) {
  std::vector<float> logits = random_values(num_rows * vocab_size, 13);
  for (float& logit : logits) logit *= 12;
  return logits;
}

TEST_P(OpsContract, LogprobsAreNearTheReferenceAlsoRowByRow) {
  constexpr int64_t kRows = 5, kVocab = 2999;
  constexpr int kTopN = 7;
  const std::vector<float> logits = spread_logits(kRows, kVocab);
  const std::vector<int32_t> targets = {0, 2998, -1, 1500, 17};
  const auto run = [&](Ops& ops, RowRange rows) {
    Arena arena(ops);
    LogprobsArgs args;
    args.logits = arena.tensor(row_span(logits, rows, kVocab), rows.count, kVocab, DType::kF32);
    args.targets = arena.copy(std::span(targets).subspan(rows.first, rows.count));
    args.target_logprob = arena.copy(std::vector<float>(rows.count));
    args.top_n = kTopN;
    args.top_ids = arena.copy(std::vector<int32_t>(rows.count * kTopN));
    args.top_logprobs = arena.copy(std::vector<float>(rows.count * kTopN));
    ops.logprobs(args);
    std::vector<float> all = arena.read(args.target_logprob, rows.count);
    if (targets[rows.first] < 0 && rows.count == 1) all[0] = 0;  // not specified
    const std::vector<float> top = arena.read(args.top_logprobs, rows.count * kTopN);
    all.insert(all.end(), top.begin(), top.end());
    return std::pair(all, arena.read(args.top_ids, rows.count * kTopN));
  };
  for (int64_t row = 0; row < kRows; ++row) {
    const auto [actual, ids] = run(*ops_, {row, 1});
    const auto [expected, expected_ids] = run(*reference_, {row, 1});
    EXPECT_EQ(ids, expected_ids);
    EXPECT_TRUE(rows_are_near(actual, expected, 1 + kTopN, GetParam().product_tolerance));
    const auto [whole, whole_ids] = run(*ops_, {0, kRows});
    EXPECT_TRUE(are_same_rows(std::span(actual).subspan(1),
                              std::span(whole).subspan(kRows + row * kTopN, kTopN), kTopN));
    if (targets[row] < 0) continue;
    EXPECT_TRUE(are_same_rows({&actual[0], 1}, {&whole[row], 1}, 1));
  }
}

TEST_P(OpsContract, LogprobsScoreWhatWasSampledWhereNoTargetIs) {
  constexpr int64_t kVocab = 777;
  const std::vector<float> logits = spread_logits(3, kVocab);
  const auto run = [&](const std::vector<int32_t>& targets, const std::vector<int32_t>& sampled) {
    Arena arena(*ops_);
    LogprobsArgs args;
    args.logits = arena.tensor(logits, 3, kVocab, DType::kF32);
    args.targets = arena.copy(targets);
    args.target_logprob = arena.copy(std::vector<float>(3));
    if (!sampled.empty()) args.sampled_ids = arena.copy(sampled);
    ops_->logprobs(args);
    return arena.read(args.target_logprob, 3);
  };
  EXPECT_TRUE(are_identical(run({-1, 5, -1}, {700, 1, 0}), run({700, 5, 0}, {})));
}

TEST_P(OpsContract, SampleDrawsWhatTheReferenceDraws) {
  constexpr int64_t kRows = 8, kVocab = 1000;
  const std::vector<float> logits = spread_logits(kRows, kVocab);
  std::vector<SamplingRow> rows(kRows);
  const std::vector<int32_t> output = {4, 4, 9};
  for (int64_t i = 0; i < kRows; ++i) {
    rows[i].temperature = static_cast<float>(i) * 0.5f;
    rows[i].top_k = i % 2 == 0 ? 0 : 40;
    rows[i].top_p = i % 3 == 0 ? 1.0f : 0.9f;
    rows[i].presence_penalty = i == 5 ? 0.5f : 0.0f;
    rows[i].output_ids = output;
    rows[i].seed = 100 + i;
    rows[i].draw_idx = i;
  }
  const auto run = [&](Ops& ops) {
    Arena arena(ops);
    SampleArgs args;
    args.logits = arena.tensor(logits, kRows, kVocab, DType::kF32);
    args.rows = rows;
    args.token_ids = arena.copy(std::vector<int32_t>(kRows, -1));
    ops.sample(args);
    EXPECT_TRUE(are_identical(arena.read(args.logits), logits));
    return arena.read(args.token_ids, kRows);
  };
  EXPECT_EQ(run(*ops_), run(*reference_));
}

}  // namespace
}  // namespace augur::contract
