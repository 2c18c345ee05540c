// Sums up the requests of a run.
//
// Latencies are those of requests that succeeded; what failed, was refused or was aborted is
// counted apart.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tools/serve_bench/histogram.h"
#include "tools/serve_bench/request_events.h"

namespace augur::serve_bench {

struct Distribution {
  int64_t count = 0;
  double mean = 0;
  double median = 0;
  double std = 0;  // of the population
  double max = 0;
  std::vector<double> percentiles;  // in the order they were asked for
};

/// Percentiles are interpolated between neighbours, as numpy.percentile does.
Distribution distribution_of(std::vector<float> samples, const std::vector<double>& percentiles);

struct Failure {
  int64_t count = 0;
  std::string example;  // what was said the first time
};

struct Summary {
  double duration_s = 0;  // from the first request sent to the end of the last
  int64_t num_ok = 0;
  int64_t num_failed = 0;
  int64_t num_refused = 0;
  int64_t num_aborted = 0;
  int64_t num_cut_off = 0;
  int64_t num_good = 0;
  std::map<std::string, Failure> failures;  // by kind
  std::map<int, Failure> refusals;          // by status
  double mean_refusal_ms = 0;
  int64_t num_with_retry_after = 0;  // of the refusals

  int64_t input_tokens = 0;  // of requests that succeeded
  int64_t output_tokens = 0;
  int64_t num_counted_by_chunks = 0;  // requests whose server sent no usage
  int64_t num_unknown_prompts = 0;    // requests whose input tokens nobody told
  int64_t num_without_content = 0;    // succeeded, but no chunk had text
  int64_t num_aborted_chunks = 0;     // chunks that aborted requests had by then
  double concurrency = 0;             // time in flight of all requests / duration
  double request_throughput = 0;      // a second, as the next ones
  double goodput = 0;
  double output_throughput = 0;
  double total_throughput = 0;  // input and output tokens
  double user_speed = 0;        // 1 / mean TPOT, tokens a second; 0 without TPOT

  Distribution ttft_ms;
  Distribution tpot_ms;
  Distribution itl_ms;
  Distribution e2e_ms;
};

class Tally {
 public:
  explicit Tally(const Goodput& goodput) : goodput_(goodput) {}

  RequestFigures add(const RequestEvents& events);
  int64_t num_ended() const { return num_ended_; }
  Summary summarize(double duration_s, const std::vector<double>& percentiles) const;

 private:
  static constexpr size_t kMaxFailureKinds = 64;

  void add_ok(const RequestEvents& events, const RequestFigures& figures);
  void add_failure(const RequestEvents& events);

  const Goodput goodput_;
  Summary counts_;  // its counts; the rest is filled in at the end
  int64_t num_ended_ = 0;
  double in_flight_ms_ = 0;
  double refusal_ms_ = 0;
  std::vector<float> ttft_ms_;
  std::vector<float> tpot_ms_;
  std::vector<float> e2e_ms_;
  Histogram itl_;
};

}  // namespace augur::serve_bench
