#include "engine/server/server_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <thread>

#include "engine/model/route_metrics.h"
#include "tests/server/exposition.h"

namespace augur::server::test {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

std::string fault_of(std::string_view page) {
  try {
    const Exposition exposition(page);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(ExpositionTest, FindsFaults) {
  const std::string head = "# HELP a_total h\n# TYPE a_total counter\n";
  EXPECT_EQ(fault_of(head + "a_total 1\n"), "");
  EXPECT_THAT(fault_of(head + "a_total 1\na_total 2\n"), HasSubstr("twice"));
  EXPECT_THAT(fault_of(head + head + "a_total 1\n"), HasSubstr("second HELP"));
  EXPECT_THAT(fault_of(head + "b_total 1\n"), HasSubstr("not of the family"));
  EXPECT_THAT(fault_of(head + "a_total x\n"), HasSubstr("not a number"));
  EXPECT_THAT(fault_of(head + "a_total{l=\"\"\"} 1\n"), HasSubstr("no end of labels"));
  EXPECT_THAT(fault_of(head + "a_total{l=\"\\x\"} 1\n"), HasSubstr("escape"));
  EXPECT_THAT(fault_of("# HELP h h\n# TYPE h histogram\nh_count 2\nh_sum 1\n"
                       "h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 2\n"),
              HasSubstr("fall"));
}

class ServerMetricsTest : public ::testing::Test {
 protected:
  static StepReport step(int prefill_tokens, int decode_tokens, milliseconds duration) {
    StepReport report;
    report.begin = std::chrono::steady_clock::now();
    report.end = report.begin + duration;
    report.prefill_tokens = prefill_tokens;
    report.decode_tokens = decode_tokens;
    return report;
  }
  Exposition page() const { return Exposition(metrics_.text(snapshot_)); }

  ServerMetrics metrics_{{.model_name = "m"}};
  MetricsSnapshot snapshot_;
};

TEST_F(ServerMetricsTest, AnEmptyPageIsWellFormed) {
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_kv_usage_ratio"), 0);
  EXPECT_EQ(page.value("augur_generated_tokens_total"), 0);
  EXPECT_EQ(page.value("augur_time_to_first_token_seconds_count"), 0);
  EXPECT_EQ(page.value("augur_refusals_total{reason=\"queue_full\"}"), 0)
      << "what can be counted is there before it happens, so that rates can be taken";
}

TEST_F(ServerMetricsTest, ShowsTheSnapshot) {
  snapshot_.engine = {.num_running = 3,
                      .num_waiting = 4,
                      .num_free_kv_blocks = 50,
                      .num_cached_kv_blocks = 30,
                      .num_idle_kv_blocks = 25};
  snapshot_.engine.counters = {.num_steps = 7,
                               .prefill_tokens = 100,
                               .decode_tokens = 20,
                               .preemptions = 2,
                               .step_us = 1'500'000,
                               .prefix_query_tokens = 90,
                               .prefix_hit_tokens = 60,
                               .prefix_evicted_blocks = 5};
  snapshot_.num_kv_blocks = 100;
  snapshot_.num_queued_requests = 1;
  snapshot_.num_queued_tokens = 12;
  snapshot_.num_open_streams = 9;
  snapshot_.num_watchdog_reports = 1;
  snapshot_.http.disconnects = 6;
  snapshot_.cpu_s = {{"io", 1.25}, {"engine", 2.5}};
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_completions_running"), 3);
  EXPECT_EQ(page.value("augur_completions_waiting"), 4);
  EXPECT_EQ(page.value("augur_queued_requests"), 1);
  EXPECT_EQ(page.value("augur_queued_prompt_tokens"), 12);
  EXPECT_EQ(page.value("augur_open_streams"), 9);
  EXPECT_EQ(page.value("augur_kv_used_blocks"), 25);
  EXPECT_EQ(page.value("augur_kv_cached_blocks"), 30);
  EXPECT_EQ(page.value("augur_kv_usage_ratio"), 0.25);
  EXPECT_EQ(page.value("augur_prefix_cache_queries_total"), 90);
  EXPECT_EQ(page.value("augur_prefix_cache_hits_total"), 60);
  EXPECT_EQ(page.value("augur_prefix_cache_evicted_blocks_total"), 5);
  EXPECT_EQ(page.value("augur_step_rows_total{phase=\"decode\"}"), 20);
  EXPECT_EQ(page.value("augur_model_seconds_total"), 1.5);
  EXPECT_EQ(page.value("augur_preemptions_total"), 2);
  EXPECT_EQ(page.value("augur_watchdog_reports_total"), 1);
  EXPECT_EQ(page.value("augur_http_disconnects_total"), 6);
  EXPECT_EQ(page.value("augur_cpu_seconds_total{thread=\"io\"}"), 1.25);
  EXPECT_EQ(page.value("augur_cpu_seconds_total{thread=\"engine\"}"), 2.5);
}

TEST_F(ServerMetricsTest, CountsStepsByWhatTheyComputed) {
  metrics_.on_step(step(10, 0, milliseconds(3)));
  metrics_.on_step(step(0, 4, milliseconds(1)));
  metrics_.on_step(step(0, 4, milliseconds(1)));
  metrics_.on_step(step(6, 2, milliseconds(5)));
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_step_seconds_count{phase=\"prefill\"}"), 1);
  EXPECT_EQ(page.value("augur_step_seconds_count{phase=\"decode\"}"), 2);
  EXPECT_NEAR(page.value("augur_step_seconds_sum{phase=\"mixed\"}"), 0.005, 1e-9);
  EXPECT_EQ(page.value("augur_step_seconds_bucket{phase=\"prefill\",le=\"0.002\"}"), 0);
  EXPECT_EQ(page.value("augur_step_seconds_bucket{phase=\"prefill\",le=\"0.004\"}"), 1);
  EXPECT_EQ(page.value("augur_step_tokens_sum"), 26);
  EXPECT_EQ(page.value("augur_step_tokens_bucket{le=\"4\"}"), 2) << "a bound is within its bucket";
  EXPECT_EQ(page.value("augur_step_tokens_bucket{le=\"8\"}"), 3);
}

TEST_F(ServerMetricsTest, TakesObservations) {
  Observations seen;
  seen.first_token_s = {0.05, 3};
  seen.inter_token_s = {0.01, 0.012, 100};
  seen.queue_s = {0.001};
  seen.prompt_tokens = 11;
  seen.cached_tokens = 8;
  seen.generated_tokens = 5;
  seen.completions[static_cast<size_t>(FinishReason::kStop)] = 2;
  seen.requests[static_cast<size_t>(AbortCause::kClient)] = 1;
  metrics_.add(seen);
  metrics_.add(seen);
  seen.clear();
  metrics_.add(seen);
  EXPECT_EQ(metrics_.num_generated_tokens(), 10);
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_time_to_first_token_seconds_count"), 4);
  EXPECT_NEAR(page.value("augur_time_to_first_token_seconds_sum"), 6.1, 1e-9);
  EXPECT_EQ(page.value("augur_inter_token_latency_seconds_count"), 6);
  EXPECT_EQ(page.value("augur_inter_token_latency_seconds_bucket{le=\"10\"}"), 4);
  EXPECT_EQ(page.value("augur_request_queue_seconds_count"), 2);
  EXPECT_EQ(page.value("augur_prompt_tokens_total"), 22);
  EXPECT_EQ(page.value("augur_cached_prompt_tokens_total"), 16);
  EXPECT_EQ(page.value("augur_completions_ended_total{finished_reason=\"stop\"}"), 4);
  EXPECT_EQ(page.value("augur_requests_ended_total{cause=\"client\"}"), 2);
}

TEST_F(ServerMetricsTest, CountsRefusalsAndAnswers) {
  metrics_.count_refusal(Refusal::kQueueFull);
  metrics_.count_refusal(Refusal::kUnknownModel);
  metrics_.count_refusal(Refusal::kUnknownModel);
  for (const int status : {200, 200, 429, 599, 100, 600, 99, -1, 0}) {
    metrics_.count_response(status);
  }
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_refusals_total{reason=\"queue_full\"}"), 1);
  EXPECT_EQ(page.value("augur_refusals_total{reason=\"unknown_model\"}"), 2);
  EXPECT_EQ(page.value("augur_http_responses_total{status=\"200\"}"), 2);
  EXPECT_EQ(page.value("augur_http_responses_total{status=\"429\"}"), 1);
  double num_answers = 0;
  for (const auto& [series, value] : page.values()) {
    if (series.starts_with("augur_http_responses_total")) num_answers += value;
  }
  EXPECT_EQ(num_answers, 5);
}

TEST_F(ServerMetricsTest, EscapesLabels) {
  metrics_.set_config_info({{"path", "C:\\models\n\"x\""}, {"policy", "fcfs"}});
  metrics_.set_startup_s("weights", 1);
  metrics_.set_startup_s("weights", 2.5);
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_config_info{path=\"C:\\\\models\\n\\\"x\\\"\",policy=\"fcfs\"}"), 1);
  EXPECT_EQ(page.value("augur_startup_seconds{phase=\"weights\"}"), 2.5);
}

TEST_F(ServerMetricsTest, ExportsFiguresOfOthers) {
  // Values of a family may stand apart.
  snapshot_.more = {{.name = "expert_hits", .help = "Found.\nHere \\ there.", .value = 3},
                    {.name = "expert_hit_rate",
                     .help = "Share.",
                     .kind = MetricKind::kGauge,
                     .label_name = "layer",
                     .label = "1",
                     .value = 0.5},
                    {.name = "expert_bytes",
                     .help = "Bytes.",
                     .label_name = "cause",
                     .label = "a\"b",
                     .value = 5e12},
                    {.name = "expert_hit_rate",
                     .help = "Share.",
                     .kind = MetricKind::kGauge,
                     .label_name = "layer",
                     .label = "2",
                     .value = 0.75}};
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_expert_hits_total"), 3);
  EXPECT_EQ(page.type("augur_expert_hits_total"), "counter");
  EXPECT_EQ(page.value("augur_expert_hit_rate{layer=\"1\"}"), 0.5);
  EXPECT_EQ(page.value("augur_expert_hit_rate{layer=\"2\"}"), 0.75);
  EXPECT_EQ(page.type("augur_expert_hit_rate"), "gauge");
  EXPECT_EQ(page.value("augur_expert_bytes_total{cause=\"a\\\"b\"}"), 5e12);
}

/// For a pool that fetches nothing.
class NoFetcher : public ExpertFetcher {
 public:
  void start(ExpertKey, int, FetchPriority) override { FAIL(); }
  void raise(int, FetchPriority) override {}
  void cancel(int) override {}
  std::span<const FetchEnd> take_ended(bool) override { return {}; }
};

TEST_F(ServerMetricsTest, ExportsAllFiguresOfTheModel) {
  NoFetcher fetcher;
  ExpertCounters counters(/*num_layers=*/3, /*num_experts=*/4);
  const ExpertPool pool(
      {.num_layers = 3, .num_moe_layers = 2, .num_experts = 4, .num_slots = 4, .top_k = 2},
      make_lru_policy(4), fetcher, counters);
  append_expert_metrics(
      {.counters = counters, .pool = pool, .slot_bytes = 100, .moe_layers = {1, 2}},
      snapshot_.more);
  append_low_bit_metrics({}, snapshot_.more);
  RouteReport routes;
  routes.layers.resize(2);
  routes.layers[1].layer_idx = 1;
  append_route_metrics(routes, snapshot_.more);
  ASSERT_GT(snapshot_.more.size(), 40u);
  const Exposition page = this->page();
  for (const Metric& metric : snapshot_.more) {
    std::string series = "augur_" + std::string(metric.name);
    if (metric.kind == MetricKind::kCounter) series += "_total";
    if (!metric.label_name.empty()) {
      series += "{" + std::string(metric.label_name) + "=\"" + metric.label + "\"}";
    }
    EXPECT_TRUE(page.has(series)) << series;
  }
}

TEST_F(ServerMetricsTest, ExportsVllmNamesOnlyWhenAsked) {
  EXPECT_THAT(metrics_.text(snapshot_), Not(HasSubstr("vllm:")));
  const ServerMetrics compatible({.model_name = "a \"b\"", .exports_vllm_names = true});
  snapshot_.engine.num_running = 3;
  snapshot_.num_queued_requests = 2;
  const Exposition page(compatible.text(snapshot_));
  const std::string labels = "model_name=\"a \\\"b\\\"\",engine=\"0\"";
  EXPECT_EQ(page.value("vllm:num_requests_running{" + labels + "}"), 3);
  EXPECT_EQ(page.value("vllm:num_requests_waiting{" + labels + "}"), 2);
  for (const char* name :
       {"kv_cache_usage_perc", "prefix_cache_queries_total", "prefix_cache_hits_total",
        "prompt_tokens_total", "generation_tokens_total", "num_preemptions_total",
        "time_to_first_token_seconds_count", "inter_token_latency_seconds_count",
        "e2e_request_latency_seconds_count", "request_queue_time_seconds_count",
        "request_prefill_time_seconds_count", "request_decode_time_seconds_count"}) {
    EXPECT_TRUE(page.has("vllm:" + std::string(name) + "{" + labels + "}")) << name;
  }
  for (const char* reason : {"stop", "length", "abort", "error"}) {
    EXPECT_TRUE(page.has("vllm:request_success_total{" + labels + ",finished_reason=\"" +
                         std::string(reason) + "\"}"))
        << reason;
  }
  EXPECT_TRUE(page.has("vllm:time_to_first_token_seconds_bucket{" + labels + ",le=\"160\"}"));
}

TEST_F(ServerMetricsTest, ManyThreadsMayCount) {
  constexpr int kNumRounds = 200;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      Observations seen;
      for (int k = 0; k < kNumRounds; ++k) {
        seen.clear();
        seen.inter_token_s.assign(3, 0.01);
        seen.generated_tokens = 3;
        metrics_.add(seen);
        metrics_.on_step(step(1, 1, milliseconds(1)));
        metrics_.count_refusal(Refusal::kInvalid);
        metrics_.set_startup_s("phase", k);
      }
    });
  }
  for (int i = 0; i < 5; ++i) EXPECT_EQ(fault_of(metrics_.text(snapshot_)), "");
  for (std::thread& thread : threads) thread.join();
  const Exposition page = this->page();
  EXPECT_EQ(page.value("augur_inter_token_latency_seconds_count"), 9 * kNumRounds);
  EXPECT_EQ(page.value("augur_generated_tokens_total"), 9 * kNumRounds);
  EXPECT_EQ(page.value("augur_step_tokens_count"), 3 * kNumRounds);
  EXPECT_EQ(page.value("augur_refusals_total{reason=\"invalid\"}"), 3 * kNumRounds);
}

}  // namespace
}  // namespace augur::server::test
