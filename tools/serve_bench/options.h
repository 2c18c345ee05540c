// What augur-bench serve is asked to do.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace augur::serve_bench {

enum class Endpoint : uint8_t { kCompletions, kChat };
enum class Arrival : uint8_t { kPoisson, kConstant };

/// What a request must keep to be good; absent: anything will do. Milliseconds.
struct Goodput {
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<double> e2e_ms;

  bool is_asked() const { return ttft_ms || tpot_ms || e2e_ms; }
};

struct Options {
  // The server.
  std::string url = "http://127.0.0.1:8000";
  std::string api_key_file;
  std::string model;  // empty: the first that the server lists
  Endpoint endpoint = Endpoint::kCompletions;
  bool is_streamed = true;
  bool flush_cache = false;

  // The load.
  // Absent: no limit with a duration, else each line of the dataset, or 1000.
  std::optional<int64_t> num_requests;
  double duration_s = 0;                                  // 0: no limit. Nothing is sent after it
  double rate = std::numeric_limits<double>::infinity();  // requests a second
  Arrival arrival = Arrival::kPoisson;
  double burstiness = 1;    // shape of the gamma distribution of gaps; 1: Poisson arrivals
  int64_t concurrency = 0;  // requests under way at most; 0: any number
  int64_t num_warmups = 0;
  double abort_share = 0;  // of requests, disconnected while they stream
  double timeout_s = 600;  // of a request
  uint64_t seed = 0;

  // The prompts.
  std::string dataset;  // JSON lines; empty: random prompts
  int64_t input_tokens = 1024;
  int64_t output_tokens = 128;
  double range_ratio = 0;  // lengths are uniform in L * (1 - ratio) to L * (1 + ratio)
  int64_t shared_prefix_tokens = 0;
  int64_t num_prefix_groups = 8;
  int64_t vocab_size = 0;  // 0: as the server says

  // The body of requests.
  std::optional<bool> ignore_eos;  // absent: for random prompts only
  double temperature = 0;
  std::string extra_body;  // a JSON object, or empty

  // What is told.
  Goodput goodput;
  std::vector<double> percentiles{50, 90, 99};
  std::string json_file;
  std::string requests_file;
  bool allow_refusals = false;
};

}  // namespace augur::serve_bench
