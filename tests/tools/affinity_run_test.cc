#include "tools/affinity/run.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>
#include <random>
#include <stdexcept>

#include "configs/config_error.h"
#include "tests/temp_folder.h"
#include "tools/affinity/workload.h"
#include "tools/replay/replay.h"

namespace augur {
namespace {

/// A request whose every token goes to `experts`, in each of the layers.
RoutedRequest constant_request(std::vector<int32_t> experts, int64_t num_tokens, int num_layers) {
  RoutedRequest request{.num_prompt = 2};
  request.experts.assign(num_tokens, std::vector(num_layers, experts));
  return request;
}

std::vector<int> in_order(const RoutedWorkload& workload) {
  std::vector<int> order(workload.requests.size());
  std::iota(order.begin(), order.end(), 0);
  return order;
}

TEST(AffinityRunTest, AgreesWithReplayWhenOneRequestRunsAlone) {
  std::mt19937 random(5);
  for (int num_slots = 1; num_slots <= 18; ++num_slots) {
    RoutedWorkload workload{.num_layers = 3, .num_experts = 6};
    RoutedRequest& request = workload.requests.emplace_back();
    request.num_prompt = 1;
    RoutingTrace trace;
    trace.num_layers = 3;
    trace.num_experts = 6;
    for (int t = 0; t < 60; ++t) {
      request.experts.emplace_back();
      TracedToken& token = trace.tokens.emplace_back();
      token.step = t;
      token.phase = t > 0;
      for (int32_t layer = 0; layer < 3; ++layer) {
        const auto expert = static_cast<int32_t>(std::min(random() % 6, random() % 6));
        request.experts[t].push_back({expert});
        token.experts_of[layer] = {expert};
      }
    }
    const ReplayCount expected =
        replay(trace, {.num_slots = num_slots}, make_lru_policy(num_slots)).generated;
    const AffinityRunResult result =
        run_workload(workload, {0}, {.batch = 1, .pool_share = num_slots / 18.0});
    EXPECT_EQ(result.num_decode_rows, 59);
    EXPECT_EQ(result.num_decode_uses, expected.num_uses);
    EXPECT_EQ(result.num_decode_misses, expected.num_misses()) << num_slots << " slots";
  }
}

TEST(AffinityRunTest, FetchesOnceWhatABatchShares) {
  RoutedWorkload workload{.num_layers = 2, .num_experts = 8};
  workload.requests.assign(4, constant_request({1, 3, 6}, 10, 2));
  const AffinityRunResult result =
      run_workload(workload, in_order(workload), {.batch = 4, .pool_share = 1});
  EXPECT_EQ(result.num_fetches, 3 * 2);
  EXPECT_EQ(result.num_decode_misses, 0) << "the prompts brought them";
  EXPECT_EQ(result.num_decode_steps, 8);
  EXPECT_EQ(result.num_decode_rows, 4 * 8);
  EXPECT_EQ(result.num_decode_uses, 8 * 2 * 3);
}

TEST(AffinityRunTest, AffinityRunsThoseOfADomainTogether) {
  std::mt19937_64 random(6);
  const RoutedWorkload workload =
      make_workload({.num_requests = 40, .num_domains = 4, .strength = 2, .num_layers = 2}, random);
  std::vector<ExpertSignature> signatures;
  for (const RoutedRequest& request : workload.requests) {
    signatures.push_back(signature_of_tokens(workload, request, 0, request.num_prompt));
  }
  AffinityRunOptions options{.batch = 4, .pool_share = 0.5};
  const AffinityRunResult fcfs = run_workload(workload, in_order(workload), options);
  EXPECT_EQ(fcfs.num_reordered, 0);
  for (const ExpertSignature& signature : signatures) options.known.push_back(&signature);
  const AffinityRunResult affinity = run_workload(workload, in_order(workload), options);
  EXPECT_EQ(affinity.num_decode_rows, fcfs.num_decode_rows);
  EXPECT_GT(affinity.num_reordered, 0);
  EXPECT_LE(affinity.most_overtaken, 8);
  EXPECT_LT(affinity.num_decode_misses, fcfs.num_decode_misses * 9 / 10);
}

TEST(AffinityWorkloadTest, MakesARequestOfEachTurn) {
  const TempFolder folder;
  const auto path = (folder.path() / "trace.csv").string();
  std::ofstream(path) << "turn,phase,step,layer,expert\n"
                         "4,0,0,1,3\n4,0,1,1,2\n4,1,0,1,5\n4,1,0,7,1\n"
                         "6,0,0,7,0\n"  // too short
                         "9,0,0,1,0\n9,0,1,1,1\n9,0,2,1,2\n9,0,3,7,3\n";
  const RoutedWorkload workload = read_workload(path);
  EXPECT_EQ(workload.num_layers, 2);
  EXPECT_EQ(workload.num_experts, 6);
  ASSERT_EQ(workload.requests.size(), 2u);
  EXPECT_EQ(workload.requests[0].num_prompt, 2);
  EXPECT_EQ(workload.requests[0].num_tokens(), 3);
  EXPECT_EQ(workload.requests[0].experts[2], (std::vector<std::vector<int32_t>>{{5}, {1}}));
  EXPECT_EQ(workload.requests[1].num_prompt, 2) << "half of a turn without generated tokens";
  EXPECT_EQ(workload.requests[1].experts[3], (std::vector<std::vector<int32_t>>{{}, {3}}));
}

TEST(AffinityWorkloadTest, RefusesATraceOfOneTurn) {
  const TempFolder folder;
  const auto path = (folder.path() / "trace.csv").string();
  std::ofstream(path) << "turn,step,layer,expert\n0,0,0,1\n0,1,0,1\n";
  EXPECT_THROW(read_workload(path), ConfigError);
}

}  // namespace
}  // namespace augur
