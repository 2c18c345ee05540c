#include "prefetch/gate_lookahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/reference_ops.h"
#include "tests/prefetch/step_of_rows.h"

namespace augur {
namespace {

constexpr int kNumExperts = 16;
constexpr int kHidden = 32;

StepLimits limits() {
  StepLimits limits;
  limits.max_tokens = 128;
  limits.max_seqs = 128;
  limits.max_logit_rows = 1;
  limits.max_context = 16;
  limits.hidden_size = kHidden;
  limits.vocab_size = 16;
  limits.num_heads = 1;
  limits.num_kv_heads = 1;
  limits.head_dim = 16;
  limits.expert_intermediate_size = 16;
  limits.num_experts = kNumExperts;
  limits.top_k = 2;
  return limits;
}

class GateLookaheadTest : public ::testing::TestWithParam<bool> {
 protected:
  GateLookaheadTest() {
    ops_ = GetParam() ? make_reference_ops(1) : make_cpu_ops(1);
    ops_->reserve(limits());
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    for (float& value : weights_) value = normal(random);
    for (float& value : x_) value = normal(random);
    for (float& value : correction_) value = 0.1f * normal(random);
    rules_.num_experts = kNumExperts;
  }

  // Layers 1 and 3 have gates; that of 3 has a correction.
  GateLookahead make() {
    return GateLookahead(*ops_, rules_,
                         {{1, weights_.data(), nullptr},
                          {3, weights_.data() + kNumExperts * kHidden, correction_.data()}});
  }
  void observe(GateLookahead& predictor, int layer, int64_t num_rows) {
    predictor.on_step({});
    RoutingView routing;
    routing.layer_idx = layer;
    routing.num_tokens = num_rows;
    routing.gate_input = dense(x_.data(), DType::kF32, num_rows, kHidden);
    predictor.on_routing(routing);
  }
  // What the gate of layer 3 chooses of the same rows.
  std::vector<int32_t> choose(int64_t num_rows, int top_k) {
    std::vector<int32_t> experts(num_rows * top_k);
    std::vector<float> weights(num_rows * top_k);
    RouterArgs args;
    args.x = dense(x_.data(), DType::kF32, num_rows, kHidden);
    args.weight = weights_.data() + kNumExperts * kHidden;
    args.correction = correction_.data();
    args.scoring = rules_.scoring;
    args.num_experts = kNumExperts;
    args.num_groups = rules_.num_groups;
    args.top_groups = rules_.top_groups;
    args.top_k = top_k;
    args.experts = experts.data();
    args.weights = weights.data();
    ops_->router(args);
    return experts;
  }

  std::unique_ptr<Ops> ops_;
  GateRules rules_;
  std::vector<float> weights_ = std::vector<float>(2 * kNumExperts * kHidden);
  std::vector<float> correction_ = std::vector<float>(kNumExperts);
  std::vector<float> x_ = std::vector<float>(128 * kHidden);
};

TEST_P(GateLookaheadTest, GuessesWhatTheGateWouldChooseOfTheSameInput) {
  rules_.scoring = RouterScoring::kSigmoid;
  GateLookahead predictor = make();
  for (const int64_t num_rows : {1, 3, 64}) {
    observe(predictor, 1, num_rows);
    for (const int width : {1, 4, 7, 16}) {
      EXPECT_EQ(guess(predictor, 3, num_rows, width), choose(num_rows, width))
          << num_rows << " rows, width " << width;
    }
  }
}

TEST_P(GateLookaheadTest, LeavesRanksEmptyThatTheGateDoesNotAdmit) {
  rules_.num_groups = 4;
  rules_.top_groups = 2;
  GateLookahead predictor = make();
  observe(predictor, 1, 2);
  const std::vector<int32_t> guesses = guess(predictor, 3, 2, 10);
  const std::vector<int32_t> admitted = choose(2, 8);
  for (int row = 0; row < 2; ++row) {
    for (int rank = 0; rank < 10; ++rank) {
      EXPECT_EQ(guesses[row * 10 + rank], rank < 8 ? admitted[row * 8 + rank] : -1);
    }
  }
}

TEST_P(GateLookaheadTest, RanksEveryExpertAtMostOnceInAWidthBeyondThem) {
  GateLookahead predictor = make();
  observe(predictor, 1, 1);
  std::vector<int32_t> guesses = guess(predictor, 3, 1, kNumExperts + 4);
  EXPECT_EQ(guesses[kNumExperts], -1);
  guesses.resize(kNumExperts);
  std::sort(guesses.begin(), guesses.end());
  for (int e = 0; e < kNumExperts; ++e) EXPECT_EQ(guesses[e], e);
}

TEST_P(GateLookaheadTest, HasNoGuessesWithoutAnEarlierLayerOfThisStep) {
  GateLookahead predictor = make();
  EXPECT_EQ(guess(predictor, 3, 1, 2), (std::vector<int32_t>{-1, -1}));
  observe(predictor, 3, 1);
  EXPECT_EQ(guess(predictor, 3, 1, 2), (std::vector<int32_t>{-1, -1}));
  observe(predictor, 1, 1);
  EXPECT_NE(guess(predictor, 3, 1, 2)[0], -1);
  predictor.on_step({});
  EXPECT_EQ(guess(predictor, 3, 1, 2), (std::vector<int32_t>{-1, -1}));
}

TEST_P(GateLookaheadTest, LeavesLargeStepsAlone) {
  GateLookahead predictor = make();
  observe(predictor, 1, 65);
  const std::vector<int32_t> guesses = guess(predictor, 3, 65, 2);
  EXPECT_EQ(guesses, std::vector<int32_t>(130, -1));
}

TEST_P(GateLookaheadTest, RefusesLayersWithoutAGate) {
  GateLookahead predictor = make();
  observe(predictor, 1, 1);
  EXPECT_THROW(guess(predictor, 2, 1, 2), std::logic_error);
  EXPECT_THROW(guess(predictor, 4, 1, 2), std::logic_error);
  EXPECT_THROW(GateLookahead(*ops_, rules_, {{1, nullptr, nullptr}}), std::logic_error);
}

INSTANTIATE_TEST_SUITE_P(Backends, GateLookaheadTest, ::testing::Bool(), [](const auto& info) {
  return info.param ? "Reference" : "Cpu";
});

}  // namespace
}  // namespace augur
