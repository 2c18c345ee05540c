#include "prefetch/prompt_signature.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "tests/prefetch/step_of_rows.h"

namespace augur {
namespace {

using Ids = std::vector<int32_t>;

Ids tokens(int32_t first, int count) {
  Ids ids(count);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

// Layer 1 is the only MoE layer of these texts; each row chooses one expert.
class PromptSignatureTest : public ::testing::Test {
 protected:
  PromptSignatureTest() : predictor_(MoeLayers({1}, 8), options()) {}
  static PromptSignature::Options options() {
    PromptSignature::Options options;
    options.checkpoint_tokens = 4;
    options.capacity = 4;
    return options;
  }
  void run(const StepOfRows& step, const Ids& experts) {
    predictor_.on_step(step.rows());
    predictor_.on_routing(routing_of(1, experts, 1));
    predictor_.on_step_end();
  }
  void decode(int64_t id, int32_t position, int32_t expert) {
    run(StepOfRows().decode(id, position), {expert});
  }
  uint64_t hash(const Ids& ids) const { return PrefixHash(ids).value(); }

  PromptSignature predictor_;
};

TEST_F(PromptSignatureTest, KeepsWhatWasChosenUpToCheckpointsAndToTheEnd) {
  run(StepOfRows().add(1, 0, tokens(10, 6)), {0, 1, 1, 2, 3, 3});
  decode(1, 6, 7);
  const auto four = predictor_.signature(hash(tokens(10, 4)));
  ASSERT_NE(four, nullptr);
  EXPECT_EQ(four->num_choices(), 4);
  EXPECT_EQ(four->counts(1)[1], 2u);
  EXPECT_EQ(four->counts(1)[3], 0u);
  const auto all = predictor_.signature(hash(tokens(10, 6)));
  ASSERT_NE(all, nullptr);
  EXPECT_EQ(all->num_choices(), 6) << "generated tokens are no part of it";
  EXPECT_EQ(all->counts(1)[3], 2u);
  EXPECT_EQ(predictor_.signature(hash(tokens(10, 5))), nullptr);
}

TEST_F(PromptSignatureTest, DoesNotDependOnHowAPromptIsCut) {
  const Ids ids = tokens(30, 9);
  const Ids experts = {0, 1, 2, 3, 4, 5, 6, 7, 0};
  for (int cut = 1; cut < 9; ++cut) {
    PromptSignature predictor(MoeLayers({1}, 8), options());
    const Ids first(experts.begin(), experts.begin() + cut);
    const Ids rest(experts.begin() + cut, experts.end());
    predictor.on_step(StepOfRows().add(1, 0, {ids.begin(), ids.begin() + cut}).rows());
    predictor.on_routing(routing_of(1, first, 1));
    predictor.on_step_end();
    // A step that fails is run again.
    const StepOfRows step = StepOfRows().add(1, cut, {ids.begin() + cut, ids.end()});
    predictor.on_step(step.rows());
    predictor.on_routing(routing_of(1, rest, 1));
    predictor.on_step(step.rows());
    predictor.on_routing(routing_of(1, rest, 1));
    predictor.on_step_end();
    predictor.on_step(StepOfRows().decode(1, 9).rows());
    for (const int length : {4, 8, 9}) {
      const auto found = predictor.signature(hash({ids.begin(), ids.begin() + length}));
      ASSERT_NE(found, nullptr) << "cut at " << cut << ", length " << length;
      EXPECT_EQ(found->num_choices(), length);
      for (int e = 0; e < 8; ++e) {
        EXPECT_EQ(found->counts(1)[e], std::count(experts.begin(), experts.begin() + length, e));
      }
    }
  }
}

TEST_F(PromptSignatureTest, GuessesForAKnownPromptBeforeItsFirstLayerRuns) {
  run(StepOfRows().add(1, 0, tokens(10, 6)), {5, 5, 2, 5, 2, 6});
  decode(1, 6, 7);
  predictor_.on_step(StepOfRows().add(2, 0, tokens(10, 6)).rows());
  EXPECT_EQ(guess(predictor_, 1, 6, 3),
            (Ids{5, 2, 6, 5, 2, 6, 5, 2, 6, 5, 2, 6, 5, 2, 6, 5, 2, 6}));
  Ids other = tokens(10, 6);
  other[5] = 99;
  predictor_.on_step(StepOfRows().add(3, 0, other).rows());
  const Ids guesses = guess(predictor_, 1, 6, 3);
  EXPECT_EQ(Ids(guesses.begin(), guesses.begin() + 3), (Ids{5, 2, -1})) << "the first four tokens";
  other[0] = 99;
  predictor_.on_step(StepOfRows().add(4, 0, other).rows());
  EXPECT_EQ(guess(predictor_, 1, 6, 1), Ids(6, -1));
}

TEST_F(PromptSignatureTest, TurnsToWhatTheSequenceUsesItself) {
  run(StepOfRows().add(1, 0, tokens(10, 4)), {5, 5, 5, 2});
  run(StepOfRows().add(2, 0, tokens(10, 4)), {5, 5, 5, 2});
  for (int i = 0; i < 100; ++i) decode(2, 4 + i, i % 4 == 0 ? 0 : 3);
  predictor_.on_step(StepOfRows().decode(2, 104).rows());
  EXPECT_EQ(guess(predictor_, 1, 1, 3), (Ids{3, 0, 5}));
}

TEST_F(PromptSignatureTest, FindsTheLongestKnownBeginning) {
  EXPECT_EQ(predictor_.signature_for(tokens(10, 9)), nullptr);
  run(StepOfRows().add(1, 0, tokens(10, 9)), Ids(9, 3));
  decode(1, 9, 0);
  Ids prompt = tokens(10, 12);
  EXPECT_EQ(predictor_.signature_for(prompt)->num_choices(), 8);
  prompt[6] = 0;
  EXPECT_EQ(predictor_.signature_for(prompt)->num_choices(), 4);
  EXPECT_EQ(predictor_.signature_for(tokens(10, 9))->num_choices(), 9);
  EXPECT_EQ(predictor_.signature_for({}), nullptr);
}

TEST_F(PromptSignatureTest, KnowsACachedBeginningOnlyWhenToldOfThePrompt) {
  run(StepOfRows().add(1, 0, tokens(10, 4)), {5, 5, 5, 2});
  // Positions 0 to 3 are in the KV cache.
  const StepOfRows rest = StepOfRows().add(2, 4, tokens(14, 4));
  predictor_.on_step(rest.rows());
  EXPECT_EQ(guess(predictor_, 1, 4, 1), Ids(4, -1));
  run(rest, Ids(4, 6));
  EXPECT_EQ(predictor_.signature(hash(tokens(10, 8))), nullptr);

  predictor_.begin_sequence(3, tokens(10, 8));
  const StepOfRows told = StepOfRows().add(3, 4, tokens(14, 4));
  predictor_.on_step(told.rows());
  EXPECT_EQ(guess(predictor_, 1, 4, 1), Ids(4, 5));
  run(told, Ids(4, 6));
  const auto whole = predictor_.signature(hash(tokens(10, 8)));
  ASSERT_NE(whole, nullptr);
  EXPECT_EQ(whole->counts(1)[5], 3u);
  EXPECT_EQ(whole->counts(1)[6], 4u);
}

TEST_F(PromptSignatureTest, ForgetsThePromptNotSeenLongest) {
  for (int32_t text = 0; text < 4; ++text) {
    run(StepOfRows().add(text, 0, tokens(100 * text, 4)), Ids(4, text));
  }
  EXPECT_NE(predictor_.signature_for(tokens(0, 4)), nullptr);  // a use
  run(StepOfRows().add(4, 0, tokens(400, 4)), Ids(4, 4));
  EXPECT_EQ(predictor_.signature_for(tokens(100, 4)), nullptr);
  EXPECT_NE(predictor_.signature_for(tokens(0, 4)), nullptr);
}

TEST_F(PromptSignatureTest, TakesSignaturesThatWereKeptElsewhere) {
  ExpertSignature signature(2, 8);
  signature.add(1, Ids{6, 6, 6, 6});
  predictor_.insert(hash(tokens(10, 4)), signature);
  predictor_.on_step(StepOfRows().add(1, 0, tokens(10, 4)).rows());
  EXPECT_EQ(guess(predictor_, 1, 4, 1), Ids(4, 6));
  EXPECT_THROW(predictor_.insert(1, ExpertSignature(2, 9)), std::logic_error);
}

TEST_F(PromptSignatureTest, CountsLargeStepsWholeButDoesNotGuessThere) {
  run(StepOfRows().add(1, 0, tokens(0, 100)), Ids(100, 3));
  EXPECT_EQ(predictor_.signature_for(tokens(0, 100))->num_choices(), 100);
  predictor_.on_step(StepOfRows().add(2, 0, tokens(0, 100)).rows());
  EXPECT_EQ(guess(predictor_, 1, 100, 1), Ids(100, -1));
}

}  // namespace
}  // namespace augur
