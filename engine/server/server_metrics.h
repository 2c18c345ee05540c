// What a server counts and measures of itself, and the page that Prometheus reads.
//
// Two kinds of figures: those kept here, told by whoever sees something happen; and those others
// keep anyway (the engine, the HTTP server, expert memory), which are handed in as a snapshot when
// the page is made. Names begin with augur_; vLLM's names can be exported beside them, from the
// same figures. Threading: any thread. What is called in every step takes no memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/expert_metrics.h"
#include "engine/server/engine_loop.h"
#include "engine/server/http_server.h"
#include "engine/server/observations.h"
#include "engine/server/stats.h"

namespace augur::server {

struct MetricsOptions {
  std::string model_name;           // the label of vLLM's names
  bool exports_vllm_names = false;  // metrics.compat: [vllm]
};

/// Why a call was not let in.
enum class Refusal : uint8_t {
  kQueueFull,
  kDraining,
  kDead,
  kInvalid,  // malformed, or asks for what is not done
  kTooLong,  // does not fit the context
  kUnknownModel,
};
inline constexpr size_t kNumRefusals = static_cast<size_t>(Refusal::kUnknownModel) + 1;

/// What others keep, as of now.
struct MetricsSnapshot {
  EngineFigures engine;
  int64_t num_kv_blocks = 0;
  int64_t num_requests = 0;  // let in, not finished
  int64_t num_queued_requests = 0;
  int64_t num_queued_tokens = 0;
  int64_t num_open_streams = 0;
  int64_t num_watchdog_reports = 0;
  HttpCounters http;
  std::vector<std::pair<std::string, double>> cpu_s;  // CPU time by the role of threads
  std::vector<Metric> more;                           // exported as augur_NAME
};

class ServerMetrics {
 public:
  explicit ServerMetrics(MetricsOptions options);
  ~ServerMetrics();

  void on_step(const StepReport& report);
  void add(const Observations& observations);
  void count_refusal(Refusal refusal);
  /// Of any answer; statuses outside 100 to 599 are not counted.
  void count_response(int status);
  /// What start-up spent in a phase; the last call of a phase counts.
  void set_startup_s(std::string_view phase, double seconds);
  /// Settings shown as labels of augur_config_info; names match [a-zA-Z_][a-zA-Z0-9_]*.
  void set_config_info(std::vector<std::pair<std::string, std::string>> settings);

  /// Output tokens so far.
  int64_t num_generated_tokens() const;
  /// Requests so far: ended by something else than the model, failed, and calls that were refused.
  struct Totals {
    int64_t aborted = 0;
    int64_t failed = 0;
    int64_t refused = 0;
  };
  Totals totals() const;
  /// Since the start, from the histograms: exact to a bucket. Nothing before the first value.
  std::optional<Percentiles> time_to_first_token() const;
  std::optional<Percentiles> inter_token_latency() const;

  /// The page, in the text format 0.0.4. Ratios of nothing are 0.
  std::string text(const MetricsSnapshot& snapshot) const;
  static constexpr std::string_view kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::server
