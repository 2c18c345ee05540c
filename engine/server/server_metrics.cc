#include "engine/server/server_metrics.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <span>

#include "engine/server/metric_families.h"

namespace augur::server {
namespace {

using Counter = std::atomic<int64_t>;

// A resident small model answers in milliseconds; a long prompt behind a full queue takes minutes.
std::vector<double> first_token_bounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
          0.75,  1,      2.5,   5,    7.5,  10,   20,   40,   80,  160};
}
// Dense from 5 to 100 ms, where people tell speeds apart.
std::vector<double> token_gap_bounds() {
  return {0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05,
          0.075,  0.1,   0.15,   0.2,   0.3,    0.4,  0.5,   0.75, 1,     2.5,  5,    10};
}
std::vector<double> request_bounds() {
  return {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,   2.5,
          5,     10,     15,    20,   30,    40,   60,  120,  240, 480, 960};
}
std::vector<double> step_bounds() {
  return {0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03,
          0.04,   0.06,    0.08,   0.1,   0.15,  0.25,  0.5,   1,     2,    5,     10,   30};
}
std::vector<double> step_token_bounds() {
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

constexpr std::array<const char*, kNumFinishReasons> kFinishReasonWords{"none", "stop", "length",
                                                                        "abort", "error"};
constexpr std::array<const char*, kNumAbortCauses> kEndWords{
    "finished", "client", "requested", "waiting_timeout", "running_timeout", "shutdown", "failed"};
constexpr std::array<const char*, kNumRefusals> kRefusalWords{
    "queue_full", "draining", "dead", "invalid", "too_long", "unknown_model"};

enum StepPhase : uint8_t { kPrefill, kDecode, kMixed };
constexpr std::array<const char*, 3> kPhaseWords{"prefill", "decode", "mixed"};

// Dashboards made for vLLM find these. Source: vllm/v1/metrics/loggers.py.
constexpr std::pair<std::string_view, std::string_view> kVllmNames[] = {
    {"augur_completions_running", "vllm:num_requests_running"},
    {"augur_completions_waiting", "vllm:num_requests_waiting"},
    {"augur_kv_usage_ratio", "vllm:kv_cache_usage_perc"},
    {"augur_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"},
    {"augur_prefix_cache_hits_total", "vllm:prefix_cache_hits_total"},
    {"augur_prompt_tokens_total", "vllm:prompt_tokens_total"},
    {"augur_generated_tokens_total", "vllm:generation_tokens_total"},
    {"augur_preemptions_total", "vllm:num_preemptions_total"},
    {"augur_completions_ended_total", "vllm:request_success_total"},
    {"augur_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"},
    {"augur_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"},
    {"augur_request_seconds", "vllm:e2e_request_latency_seconds"},
    {"augur_request_queue_seconds", "vllm:request_queue_time_seconds"},
    {"augur_request_prefill_seconds", "vllm:request_prefill_time_seconds"},
    {"augur_request_decode_seconds", "vllm:request_decode_time_seconds"},
};

double as_double(int64_t count) {
  return static_cast<double>(count);
}

template <size_t kSize>
void add_all(const std::array<int64_t, kSize>& counts, std::array<Counter, kSize>& totals) {
  for (size_t i = 0; i < kSize; ++i) {
    if (counts[i] != 0) totals[i].fetch_add(counts[i], std::memory_order_relaxed);
  }
}

void add_engine(const MetricsSnapshot& now, MetricFamilies& page) {
  const EngineFigures& engine = now.engine;
  const EngineCounters& counters = engine.counters;
  page.add_gauge("augur_completions_running", "Completions that take part in steps.",
                 as_double(engine.num_running));
  // What was let in during a step is not known to the engine yet.
  page.add_gauge("augur_completions_waiting",
                 "Completions that wait for a place, those that were preempted too.",
                 as_double(std::max(engine.num_waiting, now.num_queued_requests)));
  page.add_gauge("augur_requests", "Requests let in and not finished.",
                 as_double(now.num_requests));
  page.add_gauge("augur_queued_requests", "Requests let in and not started.",
                 as_double(now.num_queued_requests));
  page.add_gauge("augur_queued_prompt_tokens", "Prompt tokens of requests not started.",
                 as_double(now.num_queued_tokens));
  page.add_gauge("augur_open_streams", "Answers that are being streamed.",
                 as_double(now.num_open_streams));

  const int64_t num_used =
      now.num_kv_blocks - engine.num_free_kv_blocks - engine.num_idle_kv_blocks;
  page.add_gauge("augur_kv_blocks", "KV blocks there are.", as_double(now.num_kv_blocks));
  page.add_gauge("augur_kv_used_blocks", "KV blocks in use by completions.", as_double(num_used));
  page.add_gauge("augur_kv_cached_blocks", "KV blocks held by the prefix cache, in use or not.",
                 as_double(engine.num_cached_kv_blocks));
  page.add_gauge("augur_kv_usage_ratio", "Share of the KV blocks in use by completions, 0 to 1.",
                 now.num_kv_blocks > 0 ? as_double(num_used) / as_double(now.num_kv_blocks) : 0);

  page.add_counter("augur_prefix_cache_queries_total",
                   "Prompt tokens looked up in the prefix cache.",
                   as_double(counters.prefix_query_tokens));
  page.add_counter("augur_prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
                   as_double(counters.prefix_hit_tokens));
  page.add_counter("augur_prefix_cache_evicted_blocks_total",
                   "KV blocks the prefix cache gave up because memory was needed.",
                   as_double(counters.prefix_evicted_blocks));
  page.add_counter("augur_steps_total", "Steps of the engine.", as_double(counters.num_steps));
  page.add_counter("augur_step_rows_total", "Tokens computed in steps, by what they belong to.",
                   as_double(counters.prefill_tokens), {{"phase", "prefill"}});
  page.add_counter("augur_step_rows_total", "", as_double(counters.decode_tokens),
                   {{"phase", "decode"}});
  page.add_counter("augur_model_seconds_total", "Time spent in the model's steps.",
                   as_double(counters.step_us) * 1e-6);
  page.add_counter("augur_preemptions_total", "Completions put back to be computed again.",
                   as_double(counters.preemptions));
  page.add_counter("augur_reordered_admissions_total", "Completions that overtook another.",
                   as_double(counters.reordered_admissions));
  page.add_counter("augur_watchdog_reports_total", "Steps reported for taking too long.",
                   as_double(now.num_watchdog_reports));
}

void add_http(const HttpCounters& http, MetricFamilies& page) {
  const auto counter = [&page](std::string_view name, std::string_view help, int64_t count) {
    page.add_counter(name, help, as_double(count));
  };
  counter("augur_http_connections_total", "Connections accepted.", http.connections);
  counter("augur_http_refused_connections_total", "Connections beyond the limit.",
          http.refused_connections);
  counter("augur_http_requests_total", "Requests read whole.", http.requests);
  counter("augur_http_bad_requests_total", "Requests that were malformed, too large or too slow.",
          http.bad_requests);
  counter("augur_http_unauthorized_total", "Requests without a key that is known.",
          http.unauthorized);
  counter("augur_http_disconnects_total", "Clients gone before their answer was complete.",
          http.disconnects);
  counter("augur_http_slow_readers_total", "Of those, cut off for not reading.", http.slow_readers);
  counter("augur_http_sent_bytes_total", "Bytes written to sockets.", http.bytes_sent);
  counter("augur_http_stream_writes_total", "Writes to sockets that carried events.",
          http.stream_writes);
  page.add_gauge("augur_http_open_connections", "Connections that are open.",
                 as_double(http.open_connections));
}

void add_more(std::span<const Metric> metrics, MetricFamilies& page) {
  for (const Metric& metric : metrics) {
    MetricLabels labels;
    if (!metric.label_name.empty()) labels.emplace_back(metric.label_name, metric.label);
    const std::string name = "augur_" + std::string(metric.name);
    if (metric.kind == MetricKind::kCounter) {
      page.add_counter(name + "_total", metric.help, metric.value, std::move(labels));
    } else {
      page.add_gauge(name, metric.help, metric.value, std::move(labels));
    }
  }
}

/// Where a share of the values lies, taken to be evenly spread within a bucket.
double quantile(const prometheus::ClientMetric::Histogram& histogram, double share) {
  const double rank = share * static_cast<double>(histogram.sample_count);
  double low = 0;
  double below = 0;
  for (const auto& bucket : histogram.bucket) {
    const auto up_to = static_cast<double>(bucket.cumulative_count);
    if (up_to >= rank && up_to > below) {
      if (std::isinf(bucket.upper_bound)) return low;
      return low + (bucket.upper_bound - low) * (rank - below) / (up_to - below);
    }
    low = bucket.upper_bound;
    below = up_to;
  }
  return low;
}

std::optional<Percentiles> percentiles_of(const prometheus::ClientMetric& metric) {
  const auto num_samples = static_cast<int64_t>(metric.histogram.sample_count);
  if (num_samples == 0) return std::nullopt;
  return Percentiles{.num_samples = num_samples,
                     .p50_s = quantile(metric.histogram, 0.5),
                     .p90_s = quantile(metric.histogram, 0.9),
                     .p99_s = quantile(metric.histogram, 0.99)};
}

}  // namespace

class ServerMetrics::Impl {
 public:
  explicit Impl(MetricsOptions options) : options_(std::move(options)) {}

  void on_step(const StepReport& report) {
    const StepPhase phase = report.decode_tokens == 0    ? kPrefill
                            : report.prefill_tokens == 0 ? kDecode
                                                         : kMixed;
    step_s_[phase].observe(std::chrono::duration<double>(report.end - report.begin).count());
    step_tokens_.observe(as_double(report.prefill_tokens + report.decode_tokens));
  }

  void add(const Observations& observations) {
    first_token_s_.observe(observations.first_token_s);
    inter_token_s_.observe(observations.inter_token_s);
    queue_s_.observe(observations.queue_s);
    prefill_s_.observe(observations.prefill_s);
    decode_s_.observe(observations.decode_s);
    total_s_.observe(observations.total_s);
    prompt_tokens_ += observations.prompt_tokens;
    cached_tokens_ += observations.cached_tokens;
    generated_tokens_ += observations.generated_tokens;
    add_all(observations.completions, completions_);
    add_all(observations.requests, requests_);
  }

  void count_refusal(Refusal refusal) { ++refusals_[static_cast<size_t>(refusal)]; }
  void count_response(int status) {
    if (status >= kMinStatus && status < kMinStatus + kNumStatuses) {
      ++responses_[status - kMinStatus];
    }
  }
  void set_startup_s(std::string_view phase, double seconds) {
    const std::lock_guard lock(mutex_);
    startup_s_.insert_or_assign(std::string(phase), seconds);
  }
  void set_config_info(MetricLabels settings) {
    const std::lock_guard lock(mutex_);
    config_info_ = std::move(settings);
  }
  int64_t num_generated_tokens() const { return generated_tokens_; }
  Totals totals() const {
    Totals totals{.failed = requests_[static_cast<size_t>(AbortCause::kFailed)]};
    for (size_t i = static_cast<size_t>(AbortCause::kNone) + 1; i < kNumAbortCauses; ++i) {
      totals.aborted += requests_[i];
    }
    totals.aborted -= totals.failed;
    for (const Counter& refusals : refusals_) totals.refused += refusals;
    return totals;
  }
  prometheus::ClientMetric first_token_s() const { return first_token_s_.collect(); }
  prometheus::ClientMetric inter_token_s() const { return inter_token_s_.collect(); }
  std::string text(const MetricsSnapshot& snapshot) const;

 private:
  void add_tokens_and_ends(MetricFamilies& page) const;
  void add_times(MetricFamilies& page) const;
  void add_rest(const MetricsSnapshot& snapshot, MetricFamilies& page) const;

  static constexpr int kMinStatus = 100;
  static constexpr int kNumStatuses = 500;

  const MetricsOptions options_;

  std::array<BatchHistogram, 3> step_s_{BatchHistogram(step_bounds()),
                                        BatchHistogram(step_bounds()),
                                        BatchHistogram(step_bounds())};  // by StepPhase
  BatchHistogram step_tokens_{step_token_bounds()};
  BatchHistogram first_token_s_{first_token_bounds()};
  BatchHistogram inter_token_s_{token_gap_bounds()};
  BatchHistogram queue_s_{request_bounds()};
  BatchHistogram prefill_s_{request_bounds()};
  BatchHistogram decode_s_{request_bounds()};
  BatchHistogram total_s_{request_bounds()};

  Counter prompt_tokens_ = 0;
  Counter cached_tokens_ = 0;
  Counter generated_tokens_ = 0;
  std::array<Counter, kNumFinishReasons> completions_{};
  std::array<Counter, kNumAbortCauses> requests_{};
  std::array<Counter, kNumRefusals> refusals_{};
  std::array<Counter, kNumStatuses> responses_{};

  mutable std::mutex mutex_;  // guards what follows
  std::map<std::string, double> startup_s_;
  MetricLabels config_info_;
};

void ServerMetrics::Impl::add_tokens_and_ends(MetricFamilies& page) const {
  page.add_counter("augur_prompt_tokens_total", "Prompt tokens of requests that started.",
                   as_double(prompt_tokens_));
  page.add_counter("augur_cached_prompt_tokens_total",
                   "Of those, tokens whose keys and values were there already.",
                   as_double(cached_tokens_));
  page.add_counter("augur_generated_tokens_total", "Output tokens.", as_double(generated_tokens_));
  for (size_t i = 1; i < kNumFinishReasons; ++i) {
    page.add_counter("augur_completions_ended_total", "Completions that ended, by why.",
                     as_double(completions_[i]), {{"finished_reason", kFinishReasonWords[i]}});
  }
  for (size_t i = 0; i < kNumAbortCauses; ++i) {
    page.add_counter("augur_requests_ended_total",
                     "Requests that ended: finished by the model, or what ended them before.",
                     as_double(requests_[i]), {{"cause", kEndWords[i]}});
  }
  for (size_t i = 0; i < kNumRefusals; ++i) {
    page.add_counter("augur_refusals_total", "Calls that were not let in, by why.",
                     as_double(refusals_[i]), {{"reason", kRefusalWords[i]}});
  }
  for (int i = 0; i < kNumStatuses; ++i) {
    if (responses_[i] == 0) continue;
    page.add_counter("augur_http_responses_total", "Answers, by status.", as_double(responses_[i]),
                     {{"status", std::to_string(kMinStatus + i)}});
  }
}

void ServerMetrics::Impl::add_times(MetricFamilies& page) const {
  page.add_histogram("augur_time_to_first_token_seconds",
                     "From the arrival of a request to its first token.", first_token_s_.collect());
  page.add_histogram("augur_inter_token_latency_seconds", "Between tokens of a completion.",
                     inter_token_s_.collect());
  page.add_histogram("augur_request_seconds",
                     "From the arrival of a request to its end; of those the model finished.",
                     total_s_.collect());
  page.add_histogram("augur_request_queue_seconds",
                     "From the arrival of a request to its first step.", queue_s_.collect());
  page.add_histogram("augur_request_prefill_seconds",
                     "From the first step of a request to its first token.", prefill_s_.collect());
  page.add_histogram("augur_request_decode_seconds",
                     "From the first token of a request to its end.", decode_s_.collect());
  for (const StepPhase phase : {kPrefill, kDecode, kMixed}) {
    page.add_histogram("augur_step_seconds", "Time of a step, by what it computed.",
                       step_s_[phase].collect(), {{"phase", kPhaseWords[phase]}});
  }
  page.add_histogram("augur_step_tokens", "Tokens computed in a step.", step_tokens_.collect());
}

void ServerMetrics::Impl::add_rest(const MetricsSnapshot& snapshot, MetricFamilies& page) const {
  for (const auto& [role, seconds] : snapshot.cpu_s) {
    page.add_counter("augur_cpu_seconds_total", "CPU time used, by the role of threads.", seconds,
                     {{"thread", role}});
  }
  const std::lock_guard lock(mutex_);
  for (const auto& [phase, seconds] : startup_s_) {
    page.add_gauge("augur_startup_seconds", "What start-up spent, by phase.", seconds,
                   {{"phase", phase}});
  }
  if (!config_info_.empty()) {
    page.add_gauge("augur_config_info", "Settings the server runs with, as labels.", 1,
                   config_info_);
  }
}

std::string ServerMetrics::Impl::text(const MetricsSnapshot& snapshot) const {
  MetricFamilies page;
  add_engine(snapshot, page);
  add_tokens_and_ends(page);
  add_times(page);
  add_http(snapshot.http, page);
  add_rest(snapshot, page);
  add_more(snapshot.more, page);
  if (options_.exports_vllm_names) {
    page.add_renamed(kVllmNames, {{"model_name", options_.model_name}, {"engine", "0"}});
  }
  return page.text();
}

ServerMetrics::ServerMetrics(MetricsOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {}
ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::on_step(const StepReport& report) {
  impl_->on_step(report);
}
void ServerMetrics::add(const Observations& observations) {
  impl_->add(observations);
}
void ServerMetrics::count_refusal(Refusal refusal) {
  impl_->count_refusal(refusal);
}
void ServerMetrics::count_response(int status) {
  impl_->count_response(status);
}
void ServerMetrics::set_startup_s(std::string_view phase, double seconds) {
  impl_->set_startup_s(phase, seconds);
}
void ServerMetrics::set_config_info(std::vector<std::pair<std::string, std::string>> settings) {
  impl_->set_config_info(std::move(settings));
}
int64_t ServerMetrics::num_generated_tokens() const {
  return impl_->num_generated_tokens();
}
ServerMetrics::Totals ServerMetrics::totals() const {
  return impl_->totals();
}
std::optional<Percentiles> ServerMetrics::time_to_first_token() const {
  return percentiles_of(impl_->first_token_s());
}
std::optional<Percentiles> ServerMetrics::inter_token_latency() const {
  return percentiles_of(impl_->inter_token_s());
}
std::string ServerMetrics::text(const MetricsSnapshot& snapshot) const {
  return impl_->text(snapshot);
}

}  // namespace augur::server
