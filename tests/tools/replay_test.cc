#include "tools/replay/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <stdexcept>

#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

TracedToken token(int64_t step, std::map<int32_t, std::vector<int32_t>> experts_of) {
  return {.step = step, .phase = step > 0, .position = step, .experts_of = std::move(experts_of)};
}

ReplayResult replay_lru(const RoutingTrace& trace, int num_slots) {
  return replay(trace, {.num_slots = num_slots}, make_lru_policy(num_slots));
}

RoutingTrace random_trace(uint32_t seed) {
  std::mt19937 generator(seed);
  RoutingTrace trace;
  trace.num_layers = 3;
  trace.num_experts = 6;
  for (int i = 0; i < 40; ++i) {
    TracedToken token;
    token.step = i / 2;  // two tokens a step
    token.phase = i >= 10;
    for (int32_t layer = 0; layer < 3; ++layer) {
      const auto first = static_cast<int32_t>(generator() % 6);
      token.experts_of[layer] = {first, (first + 1 + static_cast<int32_t>(generator() % 5)) % 6};
    }
    trace.tokens.push_back(token);
  }
  return trace;
}

TEST(ReplayTest, CountsPromptAndGeneratedTokensApart) {
  RoutingTrace trace;
  trace.num_layers = 2;
  trace.num_experts = 4;
  trace.tokens = {token(0, {{0, {1, 2}}, {5, {3, 0}}}), token(1, {{0, {2, 3}}, {5, {3, 1}}})};
  const ReplayResult result = replay_lru(trace, 8);
  EXPECT_EQ(result.prompt.num_tokens, 1);
  EXPECT_EQ(result.prompt.num_uses, 4);
  EXPECT_EQ(result.prompt.num_hits, 0);
  EXPECT_EQ(result.generated.num_uses, 4);
  EXPECT_EQ(result.generated.num_hits, 2);
  EXPECT_DOUBLE_EQ(result.generated.hit_rate(), 0.5);
}

TEST(ReplayTest, NoExpertGivesWayToAnotherOfItsOwnLayerAndToken) {
  RoutingTrace trace;
  trace.num_layers = 1;
  trace.num_experts = 3;
  // With two slots, 0 is least recently used when 2 comes, but is wanted along with it.
  trace.tokens = {token(1, {{0, {0, 1}}}), token(2, {{0, {0, 2}}}), token(3, {{0, {0, 2}}})};
  EXPECT_EQ(replay_lru(trace, 2).generated.num_hits, 3);
}

TEST(ReplayTest, RefusesAPoolThatALayerDoesNotFit) {
  EXPECT_THROW(replay_lru(random_trace(1), 1), std::logic_error);
}

// With a pool for a few tokens and one token a step nothing but the policy decides.
TEST(ReplayTest, NobodyBeatsBelady) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    RoutingTrace trace = random_trace(seed);
    for (size_t i = 0; i < trace.tokens.size(); ++i) {
      trace.tokens[i].step = static_cast<int64_t>(i);
      trace.tokens[i].experts_of.erase(1);
      trace.tokens[i].experts_of.erase(2);
    }
    trace.num_layers = 1;
    for (const int num_slots : {2, 3, 4, 6}) {
      const auto hits = [&](std::unique_ptr<EvictionPolicy> policy) {
        const ReplayResult result = replay(trace, {.num_slots = num_slots}, std::move(policy));
        return result.prompt.num_hits + result.generated.num_hits;
      };
      const int64_t best =
          hits(make_belady_policy(num_slots, uses_of(trace, {.num_slots = num_slots})));
      EXPECT_GE(best, hits(make_lru_policy(num_slots)));
      EXPECT_GE(best, hits(make_lfu_policy(num_slots, 100)));
      EXPECT_GE(best, hits(make_least_stale_policy(num_slots)));
    }
  }
}

TEST(ReplayTest, CountsAnExpertOnceThatTokensOfAStepShare) {
  RoutingTrace trace;
  trace.num_layers = 1;
  trace.num_experts = 5;
  trace.tokens = {token(1, {{0, {1, 2}}}), token(1, {{0, {2, 3}}}), token(2, {{0, {3, 4}}})};
  const ReplayResult result = replay_lru(trace, 5);
  EXPECT_EQ(result.generated.num_tokens, 3);
  EXPECT_EQ(result.generated.num_uses, 5);
  EXPECT_EQ(result.generated.num_hits, 1);
}

// Rows of later parts count too: what many of a step's rows want stays.
TEST(ReplayTest, APartKnowsWhatTheWholeStepWants) {
  RoutingTrace trace;
  trace.num_layers = 1;
  trace.num_experts = 6;
  for (const std::vector<int32_t>& experts : {std::vector{1, 2}, {3, 4}, {1, 5}}) {
    trace.tokens.push_back({.experts_of = {{0, experts}}});
  }
  // Expert 2 is wanted by one row, expert 1 by two: 2 gives way to 4.
  const ReplayResult result = replay(trace, {.num_slots = 3, .max_rows = 1}, make_lru_policy(3));
  EXPECT_EQ(result.prompt.num_uses, 6);
  EXPECT_EQ(result.prompt.num_hits, 1);
}

TEST(RoutingTraceTest, ReadsTokensInOrderWhateverTheLinesOrder) {
  const TempFolder folder;
  const auto path = (folder.path() / "trace.csv").string();
  std::ofstream(path) << "# comment\nturn,phase,step,layer,slot,expert\n"
                         "5,1,7,0,0,4\n5,0,0,2,0,9\n5,0,0,0,0,1\n5,0,0,0,1,3\n";
  const RoutingTrace trace = read_routing_trace(path);
  ASSERT_EQ(trace.tokens.size(), 2u);
  EXPECT_EQ(trace.tokens[0].turn, 5);
  EXPECT_EQ(trace.tokens[0].phase, 0);
  EXPECT_EQ(trace.tokens[0].experts_of.at(0), (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(trace.tokens[1].phase, 1);
  EXPECT_EQ(trace.tokens[1].position, 1) << "in the turn, whatever its own count of steps says";
  EXPECT_EQ(trace.num_experts, 10);
  EXPECT_EQ(trace.num_layers, 2);
  EXPECT_EQ(uses_of(trace, {}), (std::vector<ExpertKey>{{0, 1}, {0, 3}, {2, 9}, {0, 4}}));
}

TEST(RoutingTraceTest, ReadsWhatTheEngineRecords) {
  const TempFolder folder;
  const auto path = (folder.path() / "trace.csv").string();
  std::ofstream(path)
      << "# routing recorded by Augur\nstep,turn,phase,position,layer,experts,weights\n"
         "0,7,0,0,1,3 4,0.6000 0.4000\n0,7,0,1,1,4 2,0.5 0.5\n"
         "1,7,1,2,1,0 2,1 0\n1,5,1,9,1,1 2,1 0\n1,2,0,0,1,1 2,1 0\n";
  const RoutingTrace trace = read_routing_trace(path);
  ASSERT_EQ(trace.tokens.size(), 5u);
  EXPECT_EQ(trace.tokens[4].turn, 2) << "rows that decode ran before it";
  EXPECT_EQ(trace.tokens[1].step, 0);
  EXPECT_EQ(trace.tokens[1].position, 1);
  EXPECT_EQ(trace.tokens[2].turn, 5) << "by sequence within a step";
  EXPECT_TRUE(trace.tokens[2].is_generated());
  EXPECT_EQ(trace.top_k(), 2);
  EXPECT_EQ(trace.num_experts, 5);
}

TEST(RoutingTraceTest, SaysWhatIsWrongAndWhere) {
  const TempFolder folder;
  const auto error = [&](const std::string& text) {
    const std::string path = folder.write("trace.csv", text).string();
    return message_of<ConfigError>([&] { read_routing_trace(path); });
  };
  EXPECT_THAT(error(""), testing::HasSubstr("holds no choices"));
  EXPECT_THAT(error("turn,step,layer\n"), testing::HasSubstr(":1: no column expert"));
  EXPECT_THAT(error("turn,step,layer,expert\n0,0,0,1x\n"),
              testing::HasSubstr(":2: expert: found \"1x\", accepted: a whole number"));
  EXPECT_THAT(error("turn,step,layer,expert\n0,0,0,1\n0,0,99999999,1\n"),
              testing::HasSubstr(":3: layer"));
  EXPECT_THAT(error("step,turn,phase,position,layer,experts\n0,0,0,0,0,\n"),
              testing::HasSubstr(":2: experts: found \"\""));
}

}  // namespace
}  // namespace augur
