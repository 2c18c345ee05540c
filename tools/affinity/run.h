// Runs routed requests through the scheduler and a pool of experts, without a model.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/expert_signature.h"
#include "tools/affinity/workload.h"

namespace augur {

struct AffinityRunOptions {
  int64_t batch = 8;
  double pool_share = 0.25;  // of all (layer, expert) pairs
  // What is known of each request, by index, before it runs; null: nothing. Empty: first come,
  // first served.
  std::vector<const ExpertSignature*> known;
  int64_t window = 16;
  int64_t max_overtakes = 8;
};

struct AffinityRunResult {
  int64_t num_steps = 0;
  int64_t num_decode_rows = 0;
  int64_t num_decode_steps = 0;  // steps that have such rows
  int64_t num_decode_uses = 0;   // different experts that decode rows want, by step and layer
  int64_t num_decode_misses = 0;
  int64_t num_fetches = 0;  // those, and for prompts
  int64_t num_reordered = 0;
  int64_t most_overtaken = 0;
};

/// All requests are submitted at once, in the order `order` of their indices. A step wants each
/// expert once by layer, of the engine's own pool with LRU eviction.
AffinityRunResult run_workload(const RoutedWorkload& workload,
                               const std::vector<int>& order,
                               const AffinityRunOptions& options);

}  // namespace augur
