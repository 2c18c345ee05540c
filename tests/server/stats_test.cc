// The body of GET /stats, and the figures of a pool in it.
#include "engine/server/stats.h"

#include <gtest/gtest.h>
#include <boost/json/parse.hpp>

#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "cache/expert_pool.h"
#include "engine/model/expert_metrics.h"
#include "tests/cache/fake_fetcher.h"

namespace augur::server {
namespace {

boost::json::value json_of(const Stats& stats) {
  return boost::json::parse(to_json(stats));
}

/// What stats_sample.json says.
Stats sample() {
  Stats stats;
  stats.state = ServerState::kReady;
  stats.model = "a \"model\"";
  stats.version = "1.2.3";
  stats.uptime_s = 12.5;
  stats.loading = {.phase = "warming up", .share = 0.5};
  stats.tokens = {.prompt = 11, .generated = 12};
  stats.requests = {
      .running = 1, .waiting = 2, .finished = 3, .aborted = 4, .failed = 5, .refused = 6};
  stats.queue = {.requests = 7, .max_requests = 8, .tokens = 9, .max_tokens = 10};
  stats.kv = {.block_tokens = 16,
              .total_blocks = 100,
              .free_blocks = 40,
              .cached_blocks = 30,
              .prefix_query_tokens = 50,
              .prefix_hit_tokens = 25,
              .preemptions = 2};
  stats.ttft = {.num_samples = 3, .p50_s = 0.25, .p90_s = 0.5, .p99_s = 1.5};
  stats.inter_token = {.num_samples = 4, .p50_s = 0.125, .p90_s = 0.25, .p99_s = 0.5};
  stats.resident_bytes = int64_t{5} << 40;
  return stats;
}

ExpertStats sample_experts() {
  ExpertStats experts;
  experts.num_experts = 4;
  experts.num_slots = 5;
  experts.num_fetching = 1;
  experts.slot_bytes = 1000;
  experts.counts = {.num_uses = 20,
                    .num_hits = 5,
                    .misses = {1, 2, 3, 4, 5},
                    .num_prefetches = 6,
                    .num_useful_prefetches = 4,
                    .num_wasted_prefetches = 2};
  experts.demand_bytes = 300;
  experts.useful_prefetch_bytes = 200;
  experts.wasted_prefetch_bytes = 100;
  experts.num_failed_fetches = 9;
  experts.stall_s = 1.5;
  experts.layers = {{.layer = 7,
                     .states = "0123",
                     .uses = {1, 2, 3, 4},
                     .hits = {0, 1, 2, 3},
                     .prefetches = {9, 8, 7, 6},
                     .counts = {.num_uses = 10,
                                .num_hits = 6,
                                .misses = {0, 4, 0, 0, 0},
                                .num_prefetches = 30,
                                .num_useful_prefetches = 20,
                                .num_wasted_prefetches = 10}}};
  return experts;
}

// The page's tests make their figures from the same file, so that both sides mean the same.
TEST(StatsTest, WritesEveryMemberUnderItsName) {
  std::ifstream file(AUGUR_SOURCE_DIR "/tests/server/stats_sample.json");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  Stats stats = sample();
  stats.experts = sample_experts();
  EXPECT_EQ(json_of(stats), boost::json::parse(text));
}

TEST(StatsTest, WritesNullForWhatThereIsNoneOf) {
  const boost::json::value body = json_of(Stats{});
  for (const char* name : {"loading", "ttft", "inter_token", "resident_bytes", "experts"})
    EXPECT_TRUE(body.at(name).is_null()) << name;
}

TEST(StatsTest, SaysHowFarLoadingIsWhereThatIsKnown) {
  Stats stats;
  stats.loading = {.phase = "reading weights", .share = 0.5};
  EXPECT_EQ(json_of(stats).at("state"), "loading");
  EXPECT_EQ(json_of(stats).at("loading"),
            boost::json::parse(R"({"phase": "reading weights", "share": 0.5})"));
  stats.loading->share.reset();
  EXPECT_TRUE(json_of(stats).at("loading").at("share").is_null());
}

TEST(StatsTest, IsJsonWithNumbersThatAreNotFinite) {
  Stats stats;
  stats.uptime_s = std::numeric_limits<double>::infinity();
  stats.inter_token = Percentiles{.p50_s = std::numeric_limits<double>::quiet_NaN()};
  EXPECT_TRUE(json_of(stats).at("uptime_s").is_null());
  EXPECT_TRUE(json_of(stats).at("inter_token").at("p50_s").is_null());
}

TEST(StatsTest, NamesEachStateDifferently) {
  EXPECT_EQ(name_of(ServerState::kLoading), "loading");
  EXPECT_EQ(name_of(ServerState::kReady), "ready");
  EXPECT_EQ(name_of(ServerState::kDraining), "draining");
  EXPECT_EQ(name_of(ServerState::kFailed), "failed");
}

TEST(StatsTest, KnowsTheMemoryOfThisProcess) {
  ASSERT_TRUE(resident_bytes_of_process().has_value());
  EXPECT_GT(*resident_bytes_of_process(), 100'000);
}

// Layers 1 and 2 of three have four experts each; a pool of four.
class ExpertStatsTest : public testing::Test {
 protected:
  static constexpr int kExperts = 4;

  void begin(int layer, const std::vector<int32_t>& experts) {
    const std::vector<int32_t> rows(kExperts, 1);
    pool_.begin(layer, experts, rows, rows);
  }
  void use(int layer, const std::vector<int32_t>& experts) {
    begin(layer, experts);
    while (!pool_.next().empty()) continue;
    pool_.end();
  }

  FakeFetcher fetcher_;
  ExpertCounters counters_{/*num_layers=*/3, kExperts};
  ExpertPool pool_{
      {.num_layers = 3, .num_moe_layers = 2, .num_experts = kExperts, .num_slots = 4, .top_k = 1},
      make_lru_policy(4),
      fetcher_,
      counters_};
  ExpertView view_{counters_, pool_, /*slot_bytes=*/1000, {1, 2}};
};

TEST_F(ExpertStatsTest, TellsWhereEachExpertIs) {
  use(1, {3});
  pool_.end_step(/*has_decode_rows=*/true);
  fetcher_.ends_at_once = false;
  pool_.prefetch({2, 0}, FetchPriority::kNextLayer);
  begin(1, {3});
  ASSERT_EQ(pool_.next().size(), 1);  // leased now
  const ExpertStats during = stats_of(view_);
  ASSERT_EQ(during.layers.size(), 2);
  EXPECT_EQ(during.layers[0].layer, 1);
  EXPECT_EQ(during.layers[0].states, "0003");
  EXPECT_EQ(during.layers[1].layer, 2);
  EXPECT_EQ(during.layers[1].states, "1000");
  EXPECT_EQ(during.num_fetching, 1);
  pool_.end();
  EXPECT_EQ(stats_of(view_).layers[0].states, "0002");
}

TEST_F(ExpertStatsTest, CarriesTheCountersIntoTheBody) {
  use(1, {0, 2});
  use(2, {1});
  pool_.end_step(/*has_decode_rows=*/true);
  use(1, {0});
  pool_.end_step(/*has_decode_rows=*/true);
  counters_.stall_us = 1'500'000;
  Stats stats;
  stats.experts = stats_of(view_);
  const boost::json::value body = json_of(stats);
  const boost::json::value& experts = body.at("experts");
  EXPECT_EQ(experts.at("num_slots"), 4);
  EXPECT_EQ(experts.at("slot_bytes"), 1000);
  EXPECT_EQ(experts.at("stall_s"), 1.5);
  EXPECT_EQ(experts.at("demand_bytes"), 3 * FakeFetcher::kBytes);
  EXPECT_EQ(experts.at("counts").at("uses"), 4);
  EXPECT_EQ(experts.at("counts").at("hits"), 1);
  EXPECT_EQ(experts.at("counts").at("misses").at("cold"), 3);
  const boost::json::value& layer = experts.at("layers").at(0);
  EXPECT_EQ(layer.at("layer"), 1);
  EXPECT_EQ(layer.at("states"), "2020");
  EXPECT_EQ(layer.at("uses"), boost::json::parse("[2, 0, 1, 0]"));
  EXPECT_EQ(layer.at("hits"), boost::json::parse("[1, 0, 0, 0]"));
  EXPECT_EQ(experts.at("layers").at(1).at("states"), "0200");
}

}  // namespace
}  // namespace augur::server
