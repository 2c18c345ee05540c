// What a run found, for people and for programs.
//
// Rows and JSON keys are called as in `vllm bench serve`, and as in sglang.bench_serving where vLLM
// has none.
// Threading: pure functions.
#pragma once

#include <string>

#include "tools/serve_bench/http_client.h"
#include "tools/serve_bench/load_run.h"
#include "tools/serve_bench/options.h"
#include "tools/serve_bench/tally.h"

namespace augur::serve_bench {

struct Report {
  Options options;  // as they were given
  std::string model;
  int64_t vocab_size = 0;    // bound of random token ids; 0: none were drawn
  int64_t num_requests = 0;  // asked for; the largest number there is where only time bounds a run
  Summary summary;
  PhaseResult phase;
  ClientCounters client;  // of the whole program: warm-up and other calls too
};

/// The share of a core from which on the client, not the server, may be what is measured.
inline constexpr double kBusyClientShare = 0.9;

std::string format_settings(const Report& report);
/// The table and, below it, what is to be known of its figures.
std::string format_table(const Report& report);
std::string format_json(const Report& report);

}  // namespace augur::serve_bench
