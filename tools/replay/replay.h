// Running recorded routing through a pool of expert slots, without a model.
//
// The pool is the engine's own (cache/expert_pool.h); only reading takes no time here.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "cache/eviction_policy.h"
#include "cache/expert_counters.h"
#include "cache/expert_key.h"
#include "cache/expert_pool.h"
#include "cache/routing_observer.h"
#include "cache/routing_trace.h"

namespace augur {

/// Uses of experts and how many of them found theirs in the pool.
struct ReplayCount {
  int64_t num_tokens = 0;
  int64_t num_uses = 0;
  int64_t num_hits = 0;
  int64_t num_prefetches = 0;
  int64_t num_useful_prefetches = 0;

  int64_t num_misses() const { return num_uses - num_hits; }
  double hit_rate() const {
    return num_uses > 0 ? static_cast<double>(num_hits) / static_cast<double>(num_uses) : 0;
  }
  /// Of what was prefetched the share that was not wanted.
  double wasted_share() const {
    return num_prefetches > 0 ? 1 - static_cast<double>(num_useful_prefetches) /
                                        static_cast<double>(num_prefetches)
                              : 0;
  }
};

struct ReplayResult {
  ReplayCount prompt;     // steps of prompts' tokens alone
  ReplayCount generated;  // steps with generated tokens
};

struct ReplayOptions {
  int num_slots = 0;
  /// Rows that a layer runs at once; more are run in parts. What kernels do.
  int64_t max_rows = 1024;
  /// Makes who prefetches into the pool; empty: nobody. It is told of steps and routing as the
  /// engine tells it, a layer's routing once the layer's own fetches have begun. Tokens' names,
  /// which a trace lacks, are all different; weights, gate inputs and logits are absent.
  std::function<std::unique_ptr<RoutingObserver>(ExpertPool& pool)> make_prefetcher;
};

/// All uses of a trace in the order of replay(): step by step, layer by layer, each expert once.
std::vector<ExpertKey> uses_of(const RoutingTrace& trace, const ReplayOptions& options);

/// Starts with an empty pool. Tokens of prompts count as decoding where the trace has them one to
/// a step. Requires num_slots to be at least the trace's top_k().
ReplayResult replay(const RoutingTrace& trace,
                    const ReplayOptions& options,
                    std::unique_ptr<EvictionPolicy> policy);

}  // namespace augur
