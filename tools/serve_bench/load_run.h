// Sends the requests of a phase (warm-up or measurement) when they are due.
//
// Open loop: requests arrive by a rate, whatever the server does; where --concurrency is given too,
// those over it wait here, and their time counts from when they are sent. Closed loop (an infinite
// rate): the next is sent when one ends.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "tools/serve_bench/arrivals.h"
#include "tools/serve_bench/chunk_scanner.h"
#include "tools/serve_bench/http_client.h"
#include "tools/serve_bench/request_events.h"
#include "tools/serve_bench/workload.h"

namespace augur::serve_bench {

struct Phase {
  int64_t num_requests = 0;
  bool is_warmup = false;   // its requests are numbered -1, -2, ...; none is aborted
  double duration_s = 0;    // 0: no limit
  int64_t concurrency = 0;  // 0: no limit
};

struct PhaseResult {
  int64_t start_us = 0;
  int64_t end_us = 0;  // of the last request
  int64_t num_sent = 0;
  int64_t peak_in_flight = 0;
  int64_t num_delayed = 0;       // arrivals that waited for --concurrency
  double max_lateness_ms = 0;    // of sending behind the arrival, of those not delayed
  double cpu_share = 0;          // of this thread, of one core
  double busiest_cpu_share = 0;  // in the busiest second
  bool gave_up = false;          // no connection could be had many times in a row
  bool is_interrupted = false;
};

class LoadRun {
 public:
  using Sink = std::function<void(RequestEvents&& events)>;

  /// All that is referred to outlives the run. `is_interrupted` is asked some times a second.
  LoadRun(HttpClient& client,
          const Workload& workload,
          bool is_streamed,
          std::function<bool()> is_interrupted);

  /// Sends and waits for every answer.
  PhaseResult run(const Phase& phase, Arrivals arrivals, const Sink& sink);

 private:
  class State;

  HttpClient& client_;
  const Workload& workload_;
  const bool is_streamed_;
  const std::function<bool()> is_interrupted_;
  ChunkScanner scanner_;
};

}  // namespace augur::serve_bench
