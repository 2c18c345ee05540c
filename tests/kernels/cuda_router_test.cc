#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "kernels/bf16.h"
#include "kernels/cpu/reference_ops.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/router_logits.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

TEST(RouterLogitsPlanTest, SlicesCoverTheColumnsAndTheWorkspaceHoldsEveryCount) {
  for (const int64_t hidden : {1, 100, 2048, 2880, 7168, 16'384}) {
    for (const int num_experts : {1, 60, 128, 512}) {
      constexpr int64_t kMaxTokens = 9000;
      const int64_t workspace_bytes = router_workspace_bytes(kMaxTokens, hidden, num_experts);
      for (int64_t num_tokens = 1; num_tokens <= kMaxTokens; ++num_tokens) {
        const RouterLogitsPlan plan = plan_router_logits(num_tokens, hidden, num_experts);
        ASSERT_GE(plan.num_slices * plan.slice_cols, hidden) << num_tokens;
        ASSERT_LT((plan.num_slices - 1) * plan.slice_cols, hidden) << num_tokens;
        ASSERT_LE(plan.num_slices * num_tokens * num_experts * 4, workspace_bytes) << num_tokens;
      }
    }
  }
}

struct Problem {
  int64_t num_tokens;
  int64_t hidden;
  int num_experts, top_k;
  RouterScoring scoring;
  bool has_correction = false;
  int num_groups = 1, top_groups = 1;
  bool normalises = true;
  float scaling_factor = 1;
};

struct Result {
  std::vector<int32_t> experts;
  std::vector<float> weights, logits;
};

std::vector<float> random_floats(int64_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> values;
  std::vector<float> result(count);
  for (float& value : result) value = values(generator);
  return result;
}

RouterArgs args_of(const Problem& problem) {
  return {.scoring = problem.scoring,
          .num_experts = problem.num_experts,
          .top_k = problem.top_k,
          .num_groups = problem.num_groups,
          .top_groups = problem.top_groups,
          .normalise_top_k = problem.normalises,
          .scaling_factor = problem.scaling_factor};
}

class CudaRouterTest : public CudaTest, public ::testing::WithParamInterface<Problem> {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    problem_ = GetParam();
    x_ = random_floats(problem_.num_tokens * problem_.hidden, 11);
    weight_ = random_floats(problem_.num_experts * problem_.hidden, 12);
    for (float& value : weight_) value /= std::sqrt(static_cast<float>(problem_.hidden));
    // The weights of every other problem are bf16 values, as in most checkpoints.
    if (problem_.num_tokens % 2 == 0) {
      for (float& value : weight_) value = to_float(to_bf16(value));
    }
    correction_ = random_floats(problem_.num_experts, 13);
  }

  Result run(const std::vector<float>& x, RouterArgs args, bool has_logits = true) {
    const int64_t num_tokens = static_cast<int64_t>(x.size()) / problem_.hidden;
    args.x = dense(upload(x), DType::kF32, num_tokens, problem_.hidden);
    args.weight = upload(weight_);
    if (problem_.has_correction) args.correction = upload(correction_);
    args.experts = device_array<int32_t>(num_tokens * problem_.top_k);
    args.weights = device_array<float>(num_tokens * problem_.top_k);
    float* const logits = device_array<float>(num_tokens * problem_.num_experts);
    if (has_logits) args.logits = dense(logits, DType::kF32, num_tokens, problem_.num_experts);
    std::byte* const workspace = device_array<std::byte>(
        router_workspace_bytes(num_tokens, problem_.hidden, problem_.num_experts));
    router(args, workspace, stream());
    return {download(args.experts, num_tokens * problem_.top_k),
            download(args.weights, num_tokens * problem_.top_k),
            download(logits, num_tokens * problem_.num_experts)};
  }

  /// What the reference chooses given these very logits: it multiplies them by the identity.
  Result choose_by_reference(const std::vector<float>& logits) {
    const int n = problem_.num_experts;
    std::vector<float> identity(int64_t{n} * n);
    for (int e = 0; e < n; ++e) identity[int64_t{e} * n + e] = 1;
    return reference(logits, n, identity);
  }
  Result reference(std::vector<float> x, int64_t hidden, const std::vector<float>& weight) {
    const int64_t num_tokens = static_cast<int64_t>(x.size()) / hidden;
    Result result = {std::vector<int32_t>(num_tokens * problem_.top_k),
                     std::vector<float>(num_tokens * problem_.top_k),
                     std::vector<float>(num_tokens * problem_.num_experts)};
    RouterArgs args = args_of(problem_);
    args.x = dense(x.data(), DType::kF32, num_tokens, hidden);
    args.weight = weight.data();
    if (problem_.has_correction) args.correction = correction_.data();
    args.experts = result.experts.data();
    args.weights = result.weights.data();
    args.logits = dense(result.logits.data(), DType::kF32, num_tokens, problem_.num_experts);
    make_reference_ops(1)->router(args);
    return result;
  }

  void expect_near(const std::vector<float>& actual,
                   const std::vector<float>& expected,
                   float tolerance,
                   const char* what) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], tolerance) << what << " " << i;
    }
  }

  Problem problem_;
  std::vector<float> x_, weight_, correction_;
};

TEST_P(CudaRouterTest, LogitsAreNearTheReferenceAndTheChoiceIsTheReferencesForThem) {
  const Result actual = run(x_, args_of(problem_));
  // Logits are about 1. A product is off by up to 2^-16 of itself where low * low is left out and
  // the low parts are rounded; these errors have random signs, so that the sum of them is of the
  // size of one, and the largest of ten thousand sums is four times that.
  expect_near(actual.logits, reference(x_, problem_.hidden, weight_).logits, 1.0f / 32768, "logit");
  const Result expected = choose_by_reference(actual.logits);
  EXPECT_EQ(actual.experts, expected.experts);
  // exp is within two units in the last place, and the total is summed in another order.
  for (size_t i = 0; i < actual.weights.size(); ++i) {
    ASSERT_NEAR(actual.weights[i], expected.weights[i], 2e-6f * std::abs(expected.weights[i]));
  }
  const Result again = run(x_, args_of(problem_), /*has_logits=*/false);
  EXPECT_EQ(again.experts, actual.experts);
  EXPECT_EQ(again.weights, actual.weights);
}

TEST_P(CudaRouterTest, ARowDoesNotDependOnTheOthers) {
  const Result all = run(x_, args_of(problem_));
  // The first half of the rows with others after them, one of them infinite.
  const int64_t num_kept = problem_.num_tokens / 2;
  std::vector<float> others = random_floats(static_cast<int64_t>(x_.size()), 14);
  std::copy_n(x_.begin(), num_kept * problem_.hidden, others.begin());
  if (num_kept < problem_.num_tokens) others.back() = INFINITY;
  const Result some = run(others, args_of(problem_));
  for (int64_t i = 0; i < num_kept * problem_.num_experts; ++i) {
    ASSERT_EQ(some.logits[i], all.logits[i]) << i;
  }
  for (int64_t i = 0; i < num_kept * problem_.top_k; ++i) {
    ASSERT_EQ(some.experts[i], all.experts[i]) << i;
    ASSERT_EQ(some.weights[i], all.weights[i]) << i;
  }
}

TEST_P(CudaRouterTest, GivesTiesToTheLowerIndex) {
  for (int e = 1; e < problem_.num_experts; ++e) {
    std::copy_n(weight_.begin(), problem_.hidden, weight_.begin() + e * problem_.hidden);
  }
  std::fill(correction_.begin(), correction_.end(), 0.5f);
  const Result result = run(x_, args_of(problem_));
  for (size_t i = 0; i < result.experts.size(); ++i) {
    ASSERT_EQ(result.experts[i], static_cast<int>(i) % problem_.top_k);
  }
}

TEST_P(CudaRouterTest, TakesForcedExpertsWithTheirWeights) {
  const Result chosen = run(x_, args_of(problem_));
  // The same experts in reverse have the same weights in reverse, but for the order of the sum.
  std::vector<int32_t> reversed = chosen.experts;
  for (int64_t t = 0; t < problem_.num_tokens; ++t) {
    std::reverse(reversed.begin() + t * problem_.top_k,
                 reversed.begin() + (t + 1) * problem_.top_k);
  }
  RouterArgs args = args_of(problem_);
  args.forced = upload(reversed);
  const Result forced = run(x_, args);
  EXPECT_EQ(forced.experts, reversed);
  for (int64_t i = 0; i < problem_.num_tokens * problem_.top_k; ++i) {
    const int64_t k = i % problem_.top_k;
    const float expected = chosen.weights[i - k + problem_.top_k - 1 - k];
    ASSERT_NEAR(forced.weights[i], expected, 1e-6f * std::abs(expected)) << i;
  }
}

TEST_P(CudaRouterTest, RowsThatPadTheStepGetNoExpert) {
  const Result all = run(x_, args_of(problem_));
  const auto num_valid = static_cast<int32_t>(problem_.num_tokens / 3);
  RouterArgs args = args_of(problem_);
  args.num_valid = upload(std::vector<int32_t>{num_valid});
  const Result padded = run(x_, args);
  for (int64_t i = 0; i < problem_.num_tokens * problem_.top_k; ++i) {
    const bool is_valid = i < num_valid * problem_.top_k;
    ASSERT_EQ(padded.experts[i], is_valid ? all.experts[i] : -1) << i;
    ASSERT_EQ(padded.weights[i], is_valid ? all.weights[i] : 0.0f) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Problems,
    CudaRouterTest,
    ::testing::Values(Problem{0, 64, 8, 2, RouterScoring::kSoftmax},
                      Problem{1, 16, 1, 1, RouterScoring::kSoftmax},
                      Problem{1, 2048, 128, 8, RouterScoring::kSoftmax},
                      Problem{8, 4096, 128, 8, RouterScoring::kSigmoid, true, 1, 1, true, 2.5f},
                      Problem{3, 100, 60, 6, RouterScoring::kSoftmax, false, 1, 1, false},
                      Problem{5, 33, 7, 7, RouterScoring::kSigmoid},
                      Problem{2, 2048, 128, 8, RouterScoring::kSoftmax},
                      Problem{4, 8192, 256, 8, RouterScoring::kSoftmax},
                      Problem{9, 2048, 128, 8, RouterScoring::kSoftmax},
                      Problem{16, 2880, 512, 10, RouterScoring::kSoftmax},
                      Problem{33, 2048, 128, 8, RouterScoring::kSoftmax},
                      Problem{40, 70, 37, 5, RouterScoring::kSoftmax},
                      Problem{64, 4096, 128, 8, RouterScoring::kSigmoid, true},
                      Problem{129, 1000, 64, 6, RouterScoring::kSigmoid, true, 8, 3, true, 1.5f},
                      Problem{300, 2048, 512, 10, RouterScoring::kSoftmax},
                      Problem{77, 7168, 256, 8, RouterScoring::kSigmoid, true, 8, 4, true, 2.5f},
                      Problem{6, 5120, 1024, 32, RouterScoring::kSoftmax, false, 1024, 40},
                      Problem{1024, 2048, 128, 8, RouterScoring::kSoftmax},
                      Problem{4097, 520, 130, 4, RouterScoring::kSigmoid, true},
                      Problem{700, 96, 16, 2, RouterScoring::kSoftmax, false, 4, 1, true}));

}  // namespace
}  // namespace augur::cuda
