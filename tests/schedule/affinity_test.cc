#include "engine/schedule/affinity.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <stdexcept>
#include <vector>

#include "tests/schedule/topic_oracle.h"

namespace augur {
namespace {

constexpr std::array<int32_t, 2> kPrompts[] = {{0, 5}, {1, 5}, {2, 5}, {3, 5}};

/// Knows the prompts 0, 1, ... as the signatures it is given.
class ListOracle : public AffinityOracle {
 public:
  explicit ListOracle(std::vector<ExpertSignature> signatures)
      : signatures_(std::move(signatures)) {}
  const ExpertSignature* signature_of(std::span<const int32_t> prompt_ids) override {
    return &signatures_[prompt_ids[0]];
  }

 private:
  std::vector<ExpertSignature> signatures_;
};

ExpertSignature random_signature(std::mt19937& random, int num_choices, int num_layers = 5) {
  ExpertSignature signature(num_layers, /*num_experts=*/12);
  for (int i = 0; i < num_choices; ++i) {
    // Layer 0 is dense.
    const auto layer = static_cast<int>(1 + random() % (num_layers - 1));
    const auto expert = static_cast<int32_t>(std::min(random() % 12, random() % 12));
    signature.add(layer, std::array{expert});
  }
  return signature;
}

constexpr double kRounding = 12.0 / ExpertShares::kOne;

TEST(AffinityRanker, FindsTheOverlapOfSignatures) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 50; ++trial) {
    const ExpertSignature a = random_signature(random, 200);
    const ExpertSignature b = random_signature(random, 30 + trial);
    ListOracle oracle({a, b});
    AffinityRanker ranker(&oracle);
    RequestAffinity running, waiting;
    ranker.on_start(kPrompts[0], running);
    EXPECT_NEAR(ranker.overlap(kPrompts[1], waiting), overlap(a, b), kRounding);
  }
}

TEST(AffinityRanker, CountsEachThatRunsAlike) {
  test::TopicOracle oracle;
  oracle.teach(0, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0});  // a long text counts no more
  oracle.teach(1, {1});
  oracle.teach(2, {0, 1});
  oracle.teach(3, {1, 2});
  AffinityRanker ranker(&oracle);
  std::array<RequestAffinity, 4> requests;
  ranker.on_start(kPrompts[0], requests[0]);
  ranker.on_start(kPrompts[1], requests[1]);
  EXPECT_NEAR(ranker.overlap(kPrompts[2], requests[2]), 1, kRounding);
  EXPECT_NEAR(ranker.overlap(kPrompts[3], requests[3]), 0.5, kRounding);
  ranker.on_start(kPrompts[1], requests[1]);  // its second completion
  EXPECT_NEAR(ranker.overlap(kPrompts[2], requests[2]), 1.0 / 3 + 0.5, kRounding);
}

TEST(AffinityRanker, KeepsNoTraceOfThoseThatStopped) {
  std::mt19937 random(2);
  std::vector<ExpertSignature> signatures;
  for (int i = 0; i < 4; ++i) signatures.push_back(random_signature(random, 77 * (i + 1)));
  ListOracle oracle(signatures);
  AffinityRanker busy(&oracle), fresh(&oracle);
  std::array<RequestAffinity, 4> of_busy, of_fresh;
  busy.on_start(kPrompts[0], of_busy[0]);
  for (int i = 0; i < 1000; ++i) {
    const auto which = 1 + random() % 2;
    busy.on_start(kPrompts[which], of_busy[which]);
    busy.on_start(kPrompts[3 - which], of_busy[3 - which]);
    busy.on_stop(of_busy[which]);
    busy.on_stop(of_busy[3 - which]);
  }
  fresh.on_start(kPrompts[0], of_fresh[0]);
  EXPECT_GT(fresh.overlap(kPrompts[3], of_fresh[3]), 0);
  EXPECT_EQ(busy.overlap(kPrompts[3], of_busy[3]), fresh.overlap(kPrompts[3], of_fresh[3]));
  busy.on_stop(of_busy[0]);
  EXPECT_EQ(busy.overlap(kPrompts[3], of_busy[3]), 0);
}

TEST(AffinityRanker, AsksAgainOnlyWhenAnotherHasEnded) {
  test::TopicOracle oracle;
  oracle.teach(0, {0});
  AffinityRanker ranker(&oracle);
  RequestAffinity running, waiting;
  ranker.on_start(kPrompts[0], running);
  ranker.on_start(kPrompts[0], running);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ranker.overlap(kPrompts[1], waiting), 0);
  EXPECT_EQ(oracle.num_asked(), 2);
  oracle.teach(1, {0});
  ranker.on_stop(running);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ranker.overlap(kPrompts[1], waiting), 1);
  EXPECT_EQ(oracle.num_asked(), 3);
  ranker.on_stop(running);
  EXPECT_EQ(ranker.overlap(kPrompts[1], waiting), 0);
  EXPECT_EQ(oracle.num_asked(), 3) << "what is known is not asked again";
}

TEST(AffinityRanker, CountsWhatRunsOnceItIsKnown) {
  test::TopicOracle oracle;
  oracle.teach(1, {4});
  AffinityRanker ranker(&oracle);
  RequestAffinity siblings, other;
  for (int i = 0; i < 3; ++i) ranker.on_start(kPrompts[0], siblings);
  ranker.on_stop(siblings);
  EXPECT_EQ(ranker.overlap(kPrompts[1], other), 0);
  oracle.teach(0, {4});
  EXPECT_EQ(ranker.overlap(kPrompts[0], siblings), 1);  // a fourth sibling waits
  EXPECT_EQ(ranker.overlap(kPrompts[1], other), 1);
  ranker.on_stop(siblings);
  EXPECT_EQ(ranker.overlap(kPrompts[1], other), 1);
  ranker.on_stop(siblings);
  EXPECT_EQ(ranker.overlap(kPrompts[1], other), 0);
  EXPECT_THROW(ranker.on_stop(siblings), std::logic_error);
}

TEST(AffinityRanker, RefusesSignaturesOfAnotherModel) {
  std::mt19937 random(3);
  ListOracle oracle({random_signature(random, 9), random_signature(random, 9, /*num_layers=*/4)});
  AffinityRanker ranker(&oracle);
  RequestAffinity running, other;
  ranker.on_start(kPrompts[0], running);
  EXPECT_THROW(ranker.overlap(kPrompts[1], other), std::logic_error);
}

TEST(AffinityRanker, KnowsNothingWithoutAnOracle) {
  AffinityRanker ranker(nullptr);
  RequestAffinity running, waiting;
  ranker.on_start(kPrompts[0], running);
  EXPECT_EQ(ranker.overlap(kPrompts[0], waiting), 0);
  ranker.on_stop(running);
}

}  // namespace
}  // namespace augur
