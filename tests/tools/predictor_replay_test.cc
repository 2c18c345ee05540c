#include "tools/replay/predictor_replay.h"

#include <gtest/gtest.h>

#include "prefetch/recency.h"
#include "prefetch/transition_table.h"

namespace augur {
namespace {

TracedToken token(int64_t phase, std::map<int32_t, std::vector<int32_t>> experts_of) {
  return {.phase = phase, .experts_of = std::move(experts_of)};
}

RoutingTrace trace_of(std::vector<TracedToken> tokens) {
  RoutingTrace trace;
  trace.tokens = std::move(tokens);
  trace.num_experts = 8;
  return trace;
}

TEST(PredictorReplayTest, CountsGuessesThatCameTrue) {
  const RoutingTrace trace =
      trace_of({token(0, {{0, {1, 2}}, {4, {5, 6}}}), token(1, {{0, {2, 3}}, {4, {5, 7}}}),
                token(1, {{0, {1, 4}}, {4, {5, 0}}})});
  Recency recency(moe_layers_of(trace), {});
  const std::vector<RecallCount> recalls = replay_predictor(trace, recency, {.max_distance = 2});
  ASSERT_EQ(recalls.size(), 2u);
  // Layer 0: {1, 2} had 2 of {2, 3}; then {2, 3 | 1} had 1 of {1, 4} among twice as many.
  // Layer 4: {5, 6} had 5 of {5, 7}; then {5, 7 | 6} had 5 of {5, 0}.
  EXPECT_EQ(recalls[0].num_chosen, 8);
  EXPECT_EQ(recalls[0].num_among_k, 3);
  EXPECT_EQ(recalls[0].num_among_2k, 4);
  EXPECT_EQ(recalls[1].num_chosen, 4) << "only the second layer has anything two layers before it";
  EXPECT_DOUBLE_EQ(recalls[1].at_k(), 0.5);
}

TEST(PredictorReplayTest, CountsFromTheTokenItIsToldOf) {
  std::vector<TracedToken> tokens(10, token(1, {{0, {1}}, {1, {6}}}));
  const RoutingTrace trace = trace_of(tokens);
  TransitionTable table(moe_layers_of(trace), 1);
  const auto all = replay_predictor(trace, table, {.max_distance = 1});
  EXPECT_EQ(all[0].num_chosen, 20);
  EXPECT_EQ(all[0].num_among_k, 9) << "never the first layer, nor the first token";
  TransitionTable fresh(moe_layers_of(trace), 1);
  const auto late = replay_predictor(trace, fresh, {.max_distance = 1, .first_counted_token = 5});
  EXPECT_EQ(late[0].num_chosen, 10);
  EXPECT_EQ(late[0].num_among_k, 5);
}

TEST(PredictorReplayTest, PassesOverLayersThatATokenLacks) {
  const RoutingTrace trace = trace_of({token(0, {{0, {1}}}), token(1, {{0, {1}}, {2, {3}}})});
  EXPECT_EQ(moe_layers_of(trace).num_layers(), 2);
  Recency recency(moe_layers_of(trace), {});
  const auto recalls =
      replay_predictor(trace, recency, {.max_distance = 1, .counts_prompts = true});
  EXPECT_EQ(recalls[0].num_chosen, 3);
  EXPECT_EQ(recalls[0].num_among_k, 1);
}

TEST(PredictorReplayTest, APromptAfterGeneratedTokensBeginsANewSequence) {
  const RoutingTrace trace = trace_of(
      {token(0, {{0, {1}}}), token(1, {{0, {2}}}), token(0, {{0, {3}}}), token(1, {{0, {4}}})});
  Recency recency(moe_layers_of(trace), {});
  (void)replay_predictor(trace, recency, {.max_distance = 1});
  EXPECT_EQ(recency.num_sequences(), 2u);
}

}  // namespace
}  // namespace augur
