// The reference router on cases small enough to work out by hand.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/reference_ops.h"
#include "tests/kernels/ops_contract.h"

namespace augur {
namespace {

using contract::Arena;

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

// Routes one token whose logits are given: the gate is the identity.
Choice route(const std::vector<float>& logits, RouterArgs args) {
  const auto num_experts = static_cast<int64_t>(logits.size());
  const std::unique_ptr<Ops> ops = make_reference_ops(1);
  Arena arena(*ops);
  std::vector<float> identity(num_experts * num_experts);
  for (int64_t e = 0; e < num_experts; ++e) identity[e * num_experts + e] = 1;
  Choice choice = {std::vector<int32_t>(args.top_k), std::vector<float>(args.top_k)};
  args.x = arena.tensor(logits, 1, num_experts, DType::kF32);
  args.weight = arena.copy(identity);
  args.num_experts = static_cast<int>(num_experts);
  args.experts = choice.experts.data();
  args.weights = choice.weights.data();
  args.logits = arena.result(1, num_experts, DType::kF32);
  ops->router(args);
  EXPECT_EQ(arena.read(args.logits), logits);
  return choice;
}

float logit_of(double probability) {
  return static_cast<float>(std::log(probability / (1 - probability)));
}

void expect_weights(const Choice& choice, const std::vector<double>& expected) {
  ASSERT_EQ(choice.weights.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(choice.weights[i], expected[i], 1e-6);
}

RouterArgs softmax(int top_k) {
  RouterArgs args;
  args.top_k = top_k;
  return args;
}

RouterArgs sigmoid(int top_k) {
  RouterArgs args = softmax(top_k);
  args.scoring = RouterScoring::kSigmoid;
  return args;
}

TEST(ReferenceRouter, SoftmaxWeightsAreSharesOfTheChosen) {
  const std::vector<float> logits = {std::log(1.0f), std::log(4.0f), std::log(2.0f),
                                     std::log(3.0f)};
  const Choice choice = route(logits, softmax(2));
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{1, 3}));
  expect_weights(choice, {4.0 / 7, 3.0 / 7});
}

TEST(ReferenceRouter, WithoutNormalisingSoftmaxWeightsAreProbabilitiesOfAll) {
  RouterArgs args = softmax(2);
  args.normalise_top_k = false;
  args.scaling_factor = 2.5f;
  const Choice choice =
      route({std::log(1.0f), std::log(4.0f), std::log(2.0f), std::log(3.0f)}, args);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{1, 3}));
  expect_weights(choice, {2.5 * 0.4, 2.5 * 0.3});
}

TEST(ReferenceRouter, LargeLogitsDoNotOverflow) {
  const Choice choice = route({1000, 999, -1000}, softmax(2));
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{0, 1}));
  expect_weights(choice, {1 / (1 + std::exp(-1.0)), 1 / (1 + std::exp(1.0))});
}

TEST(ReferenceRouter, SigmoidScoresAreIndependentOfEachOther) {
  RouterArgs args = sigmoid(2);
  args.normalise_top_k = false;
  const Choice choice = route({logit_of(0.2), logit_of(0.9), logit_of(0.6)}, args);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{1, 2}));
  expect_weights(choice, {0.9, 0.6});
}

TEST(ReferenceRouter, SigmoidScoresOfNothingDoNotDivideByZero) {
  const Choice choice = route({-200, -200}, sigmoid(2));
  expect_weights(choice, {0, 0});
}

TEST(ReferenceRouter, TheCorrectionChoosesButDoesNotWeigh) {
  const std::vector<float> correction = {0.5f, 0, 0, 0.1f};
  RouterArgs args = sigmoid(2);
  args.correction = correction.data();
  args.scaling_factor = 2;
  // Choice scores 0.7, 0.6, 0.5, 0.65.
  const Choice choice = route({logit_of(0.2), logit_of(0.6), logit_of(0.5), logit_of(0.55)}, args);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{0, 3}));
  expect_weights(choice, {2 * 0.2 / 0.75, 2 * 0.55 / 0.75});
}

TEST(ReferenceRouter, TiesGoToTheLowerIndex) {
  EXPECT_EQ(route({1, 2, 2, 1, 2}, softmax(4)).experts, (std::vector<int32_t>{1, 2, 4, 0}));
}

TEST(ReferenceRouter, OnlyExpertsOfTheBestGroupsCompete) {
  RouterArgs args = sigmoid(3);
  args.num_groups = 3;
  args.top_groups = 2;
  // Sums of the best two: 0.9 + 0.1, 0.6 + 0.5, 0.7 + 0.4. The best expert is out with its group;
  // its third does not count: {0.6, 0.5, 0.45}.
  const Choice choice =
      route({logit_of(0.9), logit_of(0.1), logit_of(0.05), logit_of(0.45), logit_of(0.6),
             logit_of(0.5), logit_of(0.4), logit_of(0.7), logit_of(0.01)},
            args);
  EXPECT_EQ(choice.experts, (std::vector<int32_t>{7, 4, 5}));
}

TEST(ReferenceRouter, TiedGroupsGoToTheLowerIndex) {
  RouterArgs args = sigmoid(2);
  args.num_groups = 3;
  args.top_groups = 1;
  EXPECT_EQ(route({0, 1, 2, 0, 0, 2}, args).experts, (std::vector<int32_t>{2, 3}));
}

TEST(ReferenceRouter, ExpertsOfOtherGroupsAreOutEvenWhenChoiceScoresAreNegative) {
  const std::vector<float> correction(6, -5.0f);
  RouterArgs args = sigmoid(2);
  args.correction = correction.data();
  args.num_groups = 3;
  args.top_groups = 1;
  EXPECT_EQ(route({0, 1, 3, 2, 0, 2}, args).experts, (std::vector<int32_t>{2, 3}));
}

TEST(ReferenceRouter, AGroupOfOneExpertScoresWithThatOne) {
  RouterArgs args = sigmoid(2);
  args.num_groups = 3;
  args.top_groups = 2;
  EXPECT_EQ(route({1, 3, 2}, args).experts, (std::vector<int32_t>{1, 2}));
}

TEST(ReferenceRouter, NanStillChoosesDifferentExperts) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> correction = {nan, nan, 0, nan};
  RouterArgs args = sigmoid(3);
  args.correction = correction.data();
  EXPECT_EQ(route({1, 2, 3, 4}, args).experts, (std::vector<int32_t>{2, 0, 1}));
}

TEST(ReferenceRouter, RefusesGroupsThatDoNotDivideTheExperts) {
  RouterArgs args = sigmoid(1);
  args.num_groups = 2;
  EXPECT_THROW(route({1, 2, 3}, args), std::logic_error);
  args.num_groups = 3;
  args.top_groups = 4;
  EXPECT_THROW(route({1, 2, 3}, args), std::logic_error);
  args.top_groups = 1;
  args.top_k = 2;  // one expert a group
  EXPECT_THROW(route({1, 2, 3}, args), std::logic_error);
  EXPECT_THROW(route({1, 2, 3}, softmax(4)), std::logic_error);
}

}  // namespace
}  // namespace augur
