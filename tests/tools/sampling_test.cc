#include "tools/score/sampling.h"

#include <gtest/gtest.h>

#include "tools/score/runner.h"

namespace augur::score {
namespace {

TEST(Sampling, AModelThatSaysNothingIsAskedForItsLikeliestTokens) {
  EXPECT_EQ(make_sampling({}, {}).temperature, 0);
  GenerationConfig model;
  model.temperature = 0.7;  // without do_sample it is not meant
  EXPECT_EQ(make_sampling({}, model).temperature, 0);
}

TEST(Sampling, TheModelsOwnSettingsHoldWhereNoFlagIsGiven) {
  GenerationConfig model;
  model.do_sample = true;
  model.temperature = 0.5;
  model.top_p = 0.25;
  model.top_k = 20;
  model.repetition_penalty = 1.5;
  SamplingFlags flags;
  flags.top_k = 0;
  const SamplingParams params = make_sampling(flags, model);
  EXPECT_EQ(params.temperature, 0.5f);
  EXPECT_EQ(params.top_p, 0.25f);
  EXPECT_EQ(params.top_k, 0);
  EXPECT_EQ(params.repetition_penalty, 1.5f);
  model.temperature.reset();
  EXPECT_EQ(make_sampling({}, model).temperature, 1);
}

TEST(Sampling, FlagsWin) {
  GenerationConfig model;
  model.do_sample = true;
  model.temperature = 0.5;
  SamplingFlags flags;
  flags.temperature = 0;
  flags.seed = 9;
  flags.logprobs = 3;
  const SamplingParams params = make_sampling(flags, model);
  EXPECT_EQ(params.temperature, 0);
  EXPECT_EQ(params.seed, 9u);
  EXPECT_EQ(params.logprobs, 3);
  EXPECT_EQ(make_sampling({}, model).logprobs, -1);
}

TEST(SeedOfLine, DiffersFromLineToLineAndSeedToSeed) {
  EXPECT_NE(seed_of_line(0, 1), seed_of_line(0, 2));
  EXPECT_NE(seed_of_line(0, 1), seed_of_line(1, 1));
  EXPECT_EQ(seed_of_line(5, 3), seed_of_line(5, 3));
}

}  // namespace
}  // namespace augur::score
