#include "tools/replay/replay_prefetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "configs/config_error.h"
#include "tests/temp_folder.h"
#include "tools/replay/instant_fetcher.h"
#include "tools/replay/replay.h"
#include "tools/replay/traced_rows.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two layers in which expert e is followed by 4 + e, tokens going round: 8 pairs come by turns, so
// that six slots which forget the oldest never hold the next.
RoutingTrace rounds(int num_tokens) {
  RoutingTrace trace;
  trace.num_layers = 2;
  trace.num_experts = 8;
  for (int i = 0; i < num_tokens; ++i) {
    trace.tokens.push_back(
        {.step = i, .phase = i > 0, .position = i, .experts_of = {{0, {i % 4}}, {3, {4 + i % 4}}}});
  }
  return trace;
}
constexpr int kSlots = 6;

ReplayCount replay_with(const RoutingTrace& trace, const ReplayPrefetchOptions& prefetch) {
  ReplayOptions options = {.num_slots = kSlots};
  if (!prefetch.predictors.empty()) {
    options.make_prefetcher = [&](ExpertPool& pool) {
      return std::make_unique<ReplayPrefetcher>(trace, prefetch, pool);
    };
  }
  return replay(trace, options, make_lru_policy(kSlots)).generated;
}

TEST(ReplayPrefetcherTest, BringsWhatFollowsBeforeItIsWanted) {
  const RoutingTrace trace = rounds(100);
  const ReplayCount without = replay_with(trace, {});
  EXPECT_EQ(without.num_hits, 0);
  EXPECT_EQ(without.num_prefetches, 0);
  const ReplayCount with = replay_with(trace, {.predictors = {"transition"}});
  EXPECT_EQ(with.num_uses, without.num_uses);
  EXPECT_GT(with.num_hits, 60) << "of the second layer's 99";
  EXPECT_EQ(with.num_hits, with.num_useful_prefetches) << "nothing else makes hits here";
  EXPECT_NEAR(with.wasted_share(),
              1 - static_cast<double>(with.num_hits) / static_cast<double>(with.num_prefetches),
              1e-12);
}

// The most that one layer's routing, or a step's beginning, made it fetch.
int64_t most_at_once(const RoutingTrace& trace, int max_per_layer) {
  InstantFetcher fetcher;
  ExpertCounters counters(/*num_layers=*/4, trace.num_experts);
  ExpertPool pool({.num_layers = 4,
                   .num_moe_layers = 2,
                   .num_experts = trace.num_experts,
                   .num_slots = 12,
                   .top_k = trace.top_k()},
                  make_lru_policy(12), fetcher, counters);
  ReplayPrefetcher prefetcher(trace, {.predictors = {"transition"}, .max_per_layer = max_per_layer},
                              pool);
  TracedRows rows(trace.top_k());
  int64_t most = 0;
  const auto watch = [&](const auto& tell) {
    const int64_t before = counters.total().num_prefetches;
    tell();
    most = std::max(most, counters.total().num_prefetches - before);
  };
  for (const TracedToken& token : trace.tokens) {
    watch([&] { prefetcher.on_step(rows.begin_step({&token, 1})); });
    for (const auto& [layer, experts] : token.experts_of) {
      const std::vector<int32_t> each_wants_one(trace.num_experts, 1);
      pool.begin(layer, experts, each_wants_one, each_wants_one);
      watch([&] { prefetcher.on_routing(rows.routing_of(layer)); });
      while (!pool.next().empty()) continue;
      pool.end();
    }
    pool.end_step(/*has_decode_rows=*/true);
    prefetcher.on_step_end();
  }
  return most;
}

TEST(ReplayPrefetcherTest, BringsNoMoreOfALayerThanItMay) {
  RoutingTrace trace = rounds(100);
  for (TracedToken& token : trace.tokens) {
    const auto round = static_cast<int32_t>(token.position % 4);
    token.experts_of = {{0, {4 * round, 4 * round + 1, 4 * round + 2}},
                        {3, {4 * round, 4 * round + 1, 4 * round + 2}}};
  }
  trace.num_experts = 16;
  EXPECT_EQ(most_at_once(trace, 1), 1);
  EXPECT_EQ(most_at_once(trace, 2), 2);
  EXPECT_EQ(most_at_once(trace, 0), 3);
}

TEST(ReplayPrefetcherTest, SaysWhichPredictorsNeedTheModel) {
  const MoeLayers layers({0, 3}, 8);
  for (const char* name : {"transition", "recency", "prompt_signature"}) {
    EXPECT_EQ(make_replay_predictor(name, layers, 2)->name(), name);
  }
  const auto error = [&](const char* name) {
    return message_of<ConfigError>([&] { make_replay_predictor(name, layers, 2); });
  };
  EXPECT_THAT(error("gate_lookahead"), AllOf(HasSubstr("hidden states"), HasSubstr("recency")));
  EXPECT_THAT(error("route_cache"), HasSubstr("runs with the model only"));
  EXPECT_THAT(error("luck"), HasSubstr("found \"luck\"; accepted: transition"));
}

// What a replay told, kept by the test.
struct Told {
  std::vector<StepRows> steps;
  std::vector<int32_t> positions, sequence_of_row;
  std::vector<int64_t> sequence_ids;
  std::vector<int> layers;
  std::vector<std::vector<int32_t>> choices;  // by layer told of
  int num_ends = 0;
};

class Teller final : public RoutingObserver {
 public:
  explicit Teller(Told& told) : told_(told) {}
  void on_step(const StepRows& rows) override {
    told_.steps.push_back(rows);
    told_.positions.assign(rows.positions.begin(), rows.positions.end());
    told_.sequence_of_row.assign(rows.sequence_of_row.begin(), rows.sequence_of_row.end());
    told_.sequence_ids.assign(rows.sequence_ids.begin(), rows.sequence_ids.end());
  }
  void on_routing(const RoutingView& routing) override {
    told_.layers.push_back(routing.layer_idx);
    told_.choices.emplace_back(routing.experts,
                               routing.experts + routing.num_tokens * routing.top_k);
  }
  void on_step_end() override { ++told_.num_ends; }

 private:
  Told& told_;
};

TEST(ReplayPrefetcherTest, IsToldOfAStepAndOfEachLayerOnce) {
  RoutingTrace trace;
  trace.num_layers = 2;
  trace.num_experts = 8;
  const auto token = [](int64_t turn, int64_t phase, int64_t position, int32_t expert) {
    return TracedToken{.turn = turn,
                       .phase = phase,
                       .position = position,
                       .experts_of = {{1, {expert, expert + 1}}, {4, {expert + 2}}}};
  };
  trace.tokens = {token(7, 1, 9, 0), token(2, 0, 0, 1), token(2, 0, 1, 2), token(3, 0, 5, 3)};
  Told told;
  ReplayOptions options = {.num_slots = 8, .max_rows = 2};
  options.make_prefetcher = [&](ExpertPool&) { return std::make_unique<Teller>(told); };
  (void)replay(trace, options, make_lru_policy(8));
  ASSERT_EQ(told.steps.size(), 1u);
  EXPECT_EQ(told.num_ends, 1);
  EXPECT_EQ(told.steps[0].num_tokens, 4);
  EXPECT_EQ(told.steps[0].num_decode_tokens, 1);
  EXPECT_THAT(told.positions, ElementsAre(9, 0, 1, 5));
  EXPECT_THAT(told.sequence_of_row, ElementsAre(0, 1, 1, 2));
  EXPECT_THAT(told.sequence_ids, ElementsAre(7, 2, 3));
  EXPECT_THAT(told.layers, ElementsAre(1, 4));
  EXPECT_THAT(told.choices[0], ElementsAre(0, 1, 1, 2, 2, 3, 3, 4));
  EXPECT_THAT(told.choices[1], ElementsAre(2, -1, 3, -1, 4, -1, 5, -1));
}

}  // namespace
}  // namespace augur
