// The figures of a running server at one moment, as GET /stats gives them.
//
// Counters run from the start of the server and only grow, so that a reader who asks twice knows
// what happened in between; a counter that fell, or an uptime that did, means another server.
// to_json() writes the members under their own names, in nested objects named after the structs'
// members. What there is none of is null.
// Threading: plain data. stats_of() runs on the thread that runs the model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/expert_counters.h"

namespace augur {
struct ExpertView;
}

namespace augur::server {

enum class ServerState : uint8_t {
  kLoading,   // the model is being read
  kReady,     // requests are served
  kDraining,  // those under way are finished, no more are taken
  kFailed,    // the engine has stopped; nothing will be served
};
std::string_view name_of(ServerState state);  // "loading"

/// Of times in seconds, over all samples or over recent ones, as the maker of them chooses.
struct Percentiles {
  int64_t num_samples = 0;
  double p50_s = 0;
  double p90_s = 0;
  double p99_s = 0;
};

/// One layer's experts. Vectors are by expert.
struct ExpertLayerStats {
  int layer = 0;  // number in the model
  // A digit per expert: '0' absent, '1' being fetched, '2' in the pool, '3' there and in use.
  std::string states;
  std::vector<int64_t> uses;  // per step: several rows that want an expert at once are one use
  std::vector<int64_t> hits;  // uses that found it in the pool
  std::vector<int64_t> prefetches;
  ExpertUseCounts counts;
};

/// The pool of experts.
struct ExpertStats {
  int num_experts = 0;  // of a layer
  int num_slots = 0;    // of the pool, for the experts of all layers
  int num_fetching = 0;
  int64_t slot_bytes = 0;
  ExpertUseCounts counts;  // of all layers
  int64_t demand_bytes = 0;
  int64_t useful_prefetch_bytes = 0;
  int64_t wasted_prefetch_bytes = 0;
  int64_t num_failed_fetches = 0;
  double stall_s = 0;  // layers waiting for experts
  std::vector<ExpertLayerStats> layers;
};

struct Stats {
  ServerState state = ServerState::kLoading;
  std::string model;    // its name in the API
  std::string version;  // of this program
  double uptime_s = 0;
  /// What loading is at and how far, from 0 to 1, where that is known. Null once ready.
  struct Loading {
    std::string phase;
    std::optional<double> share;
  };
  std::optional<Loading> loading;

  struct Tokens {
    int64_t prompt = 0;     // computed; those found in the prefix cache are not
    int64_t generated = 0;  // sampled
  } tokens;

  struct Requests {
    int64_t running = 0;   // completions in the batch now
    int64_t waiting = 0;   // completions not in it yet, queued ones included
    int64_t finished = 0;  // counted, from here on
    int64_t aborted = 0;   // by clients, timeouts or shutdown
    int64_t failed = 0;
    int64_t refused = 0;  // answered 4xx or 5xx without having been started
  } requests;

  /// Before the first step. Bounds of 0: nothing waits.
  struct Queue {
    int64_t requests = 0;
    int64_t max_requests = 0;
    int64_t tokens = 0;
    int64_t max_tokens = 0;
  } queue;

  struct KvCache {
    int64_t block_tokens = 0;  // positions of a block
    int64_t total_blocks = 0;
    int64_t free_blocks = 0;    // held by nobody
    int64_t cached_blocks = 0;  // held by the prefix cache, in use by requests or not
    int64_t prefix_query_tokens = 0;
    int64_t prefix_hit_tokens = 0;
    int64_t preemptions = 0;
  } kv;

  std::optional<Percentiles> ttft;         // from a request's arrival to its first token
  std::optional<Percentiles> inter_token;  // between tokens
  std::optional<int64_t> resident_bytes;   // of the process
  std::optional<ExpertStats> experts;      // absent where every expert has its own place
};

/// Requires `view` to be valid; costs time in the number of experts.
ExpertStats stats_of(const ExpertView& view);

/// The body of GET /stats. Numbers that are not finite become null.
std::string to_json(const Stats& stats);

/// Memory of this process that lies in RAM, or nothing where the system does not say.
std::optional<int64_t> resident_bytes_of_process();

}  // namespace augur::server
