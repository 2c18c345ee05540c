// The body of GET /stats, and the figures of a pool in it.
#include "engine/server/stats.h"

#include <gtest/gtest.h>
#include <boost/json/parse.hpp>

#include <limits>
#include <utility>

#include "cache/expert_pool.h"
#include "engine/model/expert_metrics.h"
#include "tests/cache/fake_fetcher.h"

namespace augur::server {
namespace {

boost::json::value json_of(const Stats& stats) {
  return boost::json::parse(to_json(stats));
}

TEST(StatsTest, WritesEveryMemberUnderItsName) {
  Stats stats;
  stats.state = ServerState::kReady;
  stats.model = "a \"model\"";
  stats.version = "1.2.3";
  stats.uptime_s = 12.5;
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
  stats.ttft = Percentiles{.num_samples = 3, .p50_s = 0.25, .p90_s = 0.5, .p99_s = 1.5};
  stats.resident_bytes = int64_t{5} << 40;
  EXPECT_EQ(json_of(stats), boost::json::parse(R"({
    "state": "ready", "model": "a \"model\"", "version": "1.2.3", "uptime_s": 12.5,
    "loading": null,
    "tokens": {"prompt": 11, "generated": 12},
    "requests": {"running": 1, "waiting": 2, "finished": 3, "aborted": 4, "failed": 5,
                 "refused": 6},
    "queue": {"requests": 7, "max_requests": 8, "tokens": 9, "max_tokens": 10},
    "kv": {"block_tokens": 16, "total_blocks": 100, "free_blocks": 40, "cached_blocks": 30,
           "prefix_query_tokens": 50, "prefix_hit_tokens": 25, "preemptions": 2},
    "ttft": {"num_samples": 3, "p50_s": 0.25, "p90_s": 0.5, "p99_s": 1.5},
    "inter_token": null,
    "resident_bytes": 5497558138880,
    "experts": null
  })"));
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
  EXPECT_EQ(body.at("experts"), boost::json::parse(R"({
    "num_experts": 4, "num_slots": 4, "num_fetching": 0, "slot_bytes": 1000,
    "counts": {"uses": 4, "hits": 1, "prefetches": 0, "useful_prefetches": 0,
               "wasted_prefetches": 0, "misses": {"late_prefetch": 0, "cold": 3,
               "prefill_evicted": 0, "mispredicted": 0, "capacity": 0}},
    "demand_bytes": 300, "useful_prefetch_bytes": 0, "wasted_prefetch_bytes": 0,
    "num_failed_fetches": 0, "stall_s": 1.5,
    "layers": [
      {"layer": 1, "states": "2020", "uses": [2, 0, 1, 0], "hits": [1, 0, 0, 0],
       "prefetches": [0, 0, 0, 0],
       "counts": {"uses": 3, "hits": 1, "prefetches": 0, "useful_prefetches": 0,
                  "wasted_prefetches": 0, "misses": {"late_prefetch": 0, "cold": 2,
                  "prefill_evicted": 0, "mispredicted": 0, "capacity": 0}}},
      {"layer": 2, "states": "0200", "uses": [0, 1, 0, 0], "hits": [0, 0, 0, 0],
       "prefetches": [0, 0, 0, 0],
       "counts": {"uses": 1, "hits": 0, "prefetches": 0, "useful_prefetches": 0,
                  "wasted_prefetches": 0, "misses": {"late_prefetch": 0, "cold": 1,
                  "prefill_evicted": 0, "mispredicted": 0, "capacity": 0}}}
    ]
  })"));
}

}  // namespace
}  // namespace augur::server
