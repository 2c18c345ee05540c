#include "tools/replay/replay.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <stdexcept>

#include "tests/temp_folder.h"

namespace augur {
namespace {

TracedToken token(int64_t phase, std::map<int32_t, std::vector<int32_t>> experts_of) {
  return {phase, std::move(experts_of)};
}

RoutingTrace random_trace(uint32_t seed) {
  std::mt19937 generator(seed);
  RoutingTrace trace;
  trace.num_layers = 3;
  trace.num_experts = 6;
  for (int i = 0; i < 40; ++i) {
    TracedToken token;
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
  const auto policy = make_lru_policy(8);
  const ReplayResult result = replay(trace, 8, *policy);
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
  trace.tokens = {token(1, {{0, {0, 1}}}), token(1, {{0, {0, 2}}}), token(1, {{0, {0, 2}}})};
  const auto policy = make_lru_policy(2);
  EXPECT_EQ(replay(trace, 2, *policy).generated.num_hits, 3);
}

TEST(ReplayTest, RefusesAPoolThatALayerDoesNotFit) {
  const auto policy = make_lru_policy(1);
  EXPECT_THROW(replay(random_trace(1), 1, *policy), std::logic_error);
}

TEST(ReplayTest, NobodyBeatsBelady) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const RoutingTrace trace = random_trace(seed);
    for (const int num_slots : {2, 5, 9, 18}) {
      const auto hits = [&](EvictionPolicy& policy) {
        const ReplayResult result = replay(trace, num_slots, policy);
        return result.prompt.num_hits + result.generated.num_hits;
      };
      const int64_t best = hits(*make_belady_policy(num_slots, uses_of(trace)));
      EXPECT_GE(best, hits(*make_lru_policy(num_slots)));
      EXPECT_GE(best, hits(*make_lfu_policy(num_slots, 100)));
    }
  }
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
  EXPECT_EQ(trace.num_experts, 10);
  EXPECT_EQ(trace.num_layers, 2);
  EXPECT_EQ(uses_of(trace), (std::vector<ExpertKey>{{0, 1}, {0, 3}, {2, 9}, {0, 4}}));
}

}  // namespace
}  // namespace augur
