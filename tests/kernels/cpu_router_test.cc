#include "kernels/cpu/router.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "tests/kernels/available_isas.h"

namespace augur::cpu {
namespace {

struct Case {
  int64_t num_tokens = 1;
  int64_t hidden_size = 64;
  int num_experts = 32;
  int top_k = 4;
  RouterScoring scoring = RouterScoring::kSoftmax;
  bool has_correction = false;
  int num_groups = 1;
  int top_groups = 1;
  bool normalise_top_k = true;
  float scaling_factor = 1;
};

/// The inputs of a call and its results.
struct Routing {
  explicit Routing(const Case& c, int seed = 7) : c(c) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    x.resize(c.num_tokens * c.hidden_size);
    weight.resize(c.num_experts * c.hidden_size);
    correction.resize(c.num_experts);
    for (float& value : x) value = uniform(random);
    for (float& value : weight) value = uniform(random);
    for (float& value : correction) value = 0.3f * uniform(random);
  }

  void run(Isa isa, int num_threads = 1) {
    experts.assign(c.num_tokens * c.top_k, -1);
    weights.assign(c.num_tokens * c.top_k, -1.0f);
    logits.assign(c.num_tokens * c.num_experts, -1.0f);
    RouterArgs args;
    args.x = dense(x.data(), DType::kF32, c.num_tokens, c.hidden_size);
    args.weight = weight.data();
    if (c.has_correction) args.correction = correction.data();
    args.scoring = c.scoring;
    args.num_experts = c.num_experts;
    args.top_k = c.top_k;
    args.num_groups = c.num_groups;
    args.top_groups = c.top_groups;
    args.normalise_top_k = c.normalise_top_k;
    args.scaling_factor = c.scaling_factor;
    args.experts = experts.data();
    args.weights = weights.data();
    args.logits = dense(logits.data(), DType::kF32, c.num_tokens, c.num_experts);
    StepLimits limits;
    limits.num_experts = c.num_experts;
    std::vector<std::byte> scratch(router_scratch_bytes(limits, num_threads) + 64);
    WorkerPool pool(num_threads);
    router(args, isa, pool,
           scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64));
  }

  Case c;
  std::vector<float> x, weight, correction;
  std::vector<int32_t> experts;
  std::vector<float> weights, logits;
};

/// What RouterArgs documents, from the logits, in double.
void expect_documented_choice(const Routing& routing) {
  const Case& c = routing.c;
  for (int64_t token = 0; token < c.num_tokens; ++token) {
    std::vector<double> scores(c.num_experts);
    const float* logits = routing.logits.data() + token * c.num_experts;
    const double maximum = *std::max_element(logits, logits + c.num_experts);
    double sum = 0;
    for (int e = 0; e < c.num_experts; ++e) {
      scores[e] = c.scoring == RouterScoring::kSoftmax ? std::exp(logits[e] - maximum)
                                                       : 1.0 / (1.0 + std::exp(-logits[e]));
      sum += scores[e];
    }
    if (c.scoring == RouterScoring::kSoftmax) {
      for (double& score : scores) score /= sum;
    }
    std::vector<double> choice = scores;
    if (c.has_correction) {
      for (int e = 0; e < c.num_experts; ++e) choice[e] += routing.correction[e];
    }
    const int group_size = c.num_experts / c.num_groups;
    std::vector<double> group_scores(c.num_groups);
    std::vector<int> groups(c.num_groups);
    for (int group = 0; group < c.num_groups; ++group) {
      std::vector<double> members(choice.begin() + group * group_size,
                                  choice.begin() + (group + 1) * group_size);
      std::sort(members.rbegin(), members.rend());
      group_scores[group] = members[0] + (group_size > 1 ? members[1] : 0);
      groups[group] = group;
    }
    std::stable_sort(groups.begin(), groups.end(),
                     [&](int a, int b) { return group_scores[a] > group_scores[b]; });
    std::vector<int> order;
    for (int e = 0; e < c.num_experts; ++e) {
      const auto end = groups.begin() + c.top_groups;
      if (std::find(groups.begin(), end, e / group_size) != end) order.push_back(e);
    }
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return choice[a] > choice[b]; });
    double chosen_sum = 0;
    for (int k = 0; k < c.top_k; ++k) chosen_sum += scores[order[k]];
    for (int k = 0; k < c.top_k; ++k) {
      ASSERT_EQ(routing.experts[token * c.top_k + k], order[k]) << "token " << token;
      double weight = scores[order[k]] * c.scaling_factor;
      if (c.normalise_top_k) weight /= chosen_sum;
      ASSERT_NEAR(routing.weights[token * c.top_k + k], weight, 2e-6 * weight + 1e-30);
    }
  }
}

class CpuRouterTest : public ::testing::TestWithParam<Isa> {};

TEST_P(CpuRouterTest, LogitsAreDotProducts) {
  for (int64_t hidden_size : {1, 16, 33, 256}) {
    for (int num_experts : {1, 3, 16, 37, 128}) {
      for (int64_t num_tokens : {1, 2, 7, 33, 150}) {
        Routing routing({num_tokens, hidden_size, num_experts, 1});
        routing.run(GetParam(), 2);
        for (int64_t token = 0; token < num_tokens; ++token) {
          for (int e = 0; e < num_experts; ++e) {
            double dot = 0;
            for (int64_t i = 0; i < hidden_size; ++i) {
              dot += static_cast<double>(routing.x[token * hidden_size + i]) *
                     routing.weight[e * hidden_size + i];
            }
            ASSERT_NEAR(routing.logits[token * num_experts + e], dot, 1e-5);
          }
        }
      }
    }
  }
}

TEST_P(CpuRouterTest, ChoosesAsDocumented) {
  const RouterScoring softmax = RouterScoring::kSoftmax;
  const RouterScoring sigmoid = RouterScoring::kSigmoid;
  const Case cases[] = {
      {40, 64, 32, 4, softmax},
      {40, 64, 128, 8, softmax, false, 1, 1, false, 1.0f},
      {40, 64, 60, 4, softmax, true, 1, 1, true, 2.5f},
      {40, 64, 256, 8, sigmoid, true, 8, 4, true, 2.5f},
      {40, 64, 64, 6, sigmoid, false, 1, 1, true, 1.0f},
      {40, 64, 32, 4, sigmoid, true, 4, 1, false, 1.0f},
      {40, 64, 8, 8, softmax, true, 8, 8, true, 1.0f},
      {40, 64, 24, 3, softmax, false, 3, 2, true, 1.0f},
      {3, 16, 1, 1, softmax},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::to_string(c.num_experts) + " experts in " + std::to_string(c.num_groups));
    Routing routing(c);
    routing.run(GetParam());
    expect_documented_choice(routing);
  }
}

TEST_P(CpuRouterTest, BreaksTiesToTheLowerIndex) {
  for (RouterScoring scoring : {RouterScoring::kSoftmax, RouterScoring::kSigmoid}) {
    Routing routing({2, 32, 40, 5, scoring});
    std::fill(routing.weight.begin(), routing.weight.end(), 0.5f);
    for (int i = 0; i < 32; ++i) {  // experts 38 and 20 tie above the rest
      for (int e : {20, 38}) routing.weight[e * 32 + i] = routing.x[i] > 0 ? 1.0f : -1.0f;
    }
    routing.run(GetParam());
    EXPECT_EQ(std::vector<int32_t>(routing.experts.begin(), routing.experts.begin() + 5),
              (std::vector<int32_t>{20, 38, 0, 1, 2}));
  }
}

TEST_P(CpuRouterTest, BreaksTiesOfGroupsToTheLowerIndex) {
  Routing routing({1, 16, 16, 4, RouterScoring::kSigmoid, false, 4, 2});
  std::fill(routing.weight.begin(), routing.weight.end(), 0.25f);
  routing.run(GetParam());
  EXPECT_EQ(routing.experts, (std::vector<int32_t>{0, 1, 2, 3}));
  for (float weight : routing.weights) EXPECT_EQ(weight, 0.25f);
}

TEST_P(CpuRouterTest, GivesATokenTheSameBitsAloneAndOnAnyNumberOfThreads) {
  const Case c = {150, 200, 45, 6, RouterScoring::kSigmoid, true};
  Routing whole(c);
  whole.run(GetParam());
  for (int num_threads : {2, 3}) {
    Routing again(c);
    again.run(GetParam(), num_threads);
    EXPECT_EQ(again.logits, whole.logits);
    EXPECT_EQ(again.experts, whole.experts);
    EXPECT_EQ(again.weights, whole.weights);
  }
  for (int64_t count : {1, 2, 3, 17}) {
    Case part = c;
    part.num_tokens = count;
    for (int64_t first : {0, 64, 131}) {
      Routing few(part);
      few.x.assign(whole.x.begin() + first * c.hidden_size,
                   whole.x.begin() + (first + count) * c.hidden_size);
      few.weight = whole.weight;
      few.correction = whole.correction;
      few.run(GetParam(), 2);
      const auto same = [&](const auto& some, const auto& all, int64_t cols) {
        return std::equal(some.begin(), some.end(), all.begin() + first * cols);
      };
      EXPECT_TRUE(same(few.logits, whole.logits, c.num_experts));
      EXPECT_TRUE(same(few.experts, whole.experts, c.top_k));
      EXPECT_TRUE(same(few.weights, whole.weights, c.top_k));
    }
  }
}

TEST_P(CpuRouterTest, SurvivesExtremeLogits) {
  for (RouterScoring scoring : {RouterScoring::kSoftmax, RouterScoring::kSigmoid}) {
    Routing routing({8, 64, 32, 4, scoring});
    for (float& value : routing.x) value *= 1e6f;
    routing.run(GetParam());
    for (int64_t token = 0; token < 8; ++token) {
      float sum = 0;
      for (int k = 0; k < 4; ++k) sum += routing.weights[token * 4 + k];
      EXPECT_NEAR(sum, 1.0f, 1e-6f);
    }
  }
}

TEST_P(CpuRouterTest, ChoosesDifferentExpertsEvenFromNaN) {
  for (RouterScoring scoring : {RouterScoring::kSoftmax, RouterScoring::kSigmoid}) {
    Routing routing({1, 16, 20, 6, scoring});
    routing.x[3] = NAN;
    routing.run(GetParam());
    const std::set<int32_t> experts(routing.experts.begin(), routing.experts.end());
    EXPECT_EQ(experts.size(), 6u);
    EXPECT_GE(*experts.begin(), 0);
    EXPECT_LT(*experts.rbegin(), 20);
    for (float weight : routing.weights) EXPECT_TRUE(std::isnan(weight));
  }
}

TEST_P(CpuRouterTest, DoesNothingForNoTokens) {
  Routing routing({0});
  routing.run(GetParam(), 2);
  EXPECT_TRUE(routing.experts.empty());
}

TEST_P(CpuRouterTest, RefusesImpossibleChoices) {
  for (const Case& c : {Case{1, 16, 8, 9}, Case{1, 16, 8, 0},
                        Case{1, 16, 10, 2, RouterScoring::kSoftmax, false, 4, 1},
                        Case{1, 16, 8, 3, RouterScoring::kSoftmax, false, 4, 1},
                        Case{1, 16, 8, 2, RouterScoring::kSoftmax, false, 4, 5}}) {
    Routing routing(c);
    EXPECT_THROW(routing.run(GetParam()), std::logic_error);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, CpuRouterTest, ::testing::ValuesIn(available_isas()), isa_test_name);

}  // namespace
}  // namespace augur::cpu
