// Running recorded routing through a pool of expert slots, without a model.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/eviction_policy.h"
#include "cache/expert_key.h"
#include "tools/trace/routing_trace.h"

namespace augur {

/// Uses of experts and how many of them found theirs in the pool.
struct ReplayCount {
  int64_t num_tokens = 0;
  int64_t num_uses = 0;
  int64_t num_hits = 0;

  int64_t num_misses() const { return num_uses - num_hits; }
  double hit_rate() const {
    return num_uses > 0 ? static_cast<double>(num_hits) / static_cast<double>(num_uses) : 0;
  }
};

struct ReplayResult {
  ReplayCount prompt;     // tokens of phase 0
  ReplayCount generated;  // of the other phases
};

/// All uses of a trace in the order of replay(): token by token, layer by layer.
std::vector<ExpertKey> uses_of(const RoutingTrace& trace);

/// The experts of a token's layer are asked for together, and none of them gives way to another.
/// A miss fills an empty slot or that of the policy's victim. Starts with an empty pool. Requires
/// num_slots to be at least the experts of any token's layer.
ReplayResult replay(const RoutingTrace& trace, int num_slots, EvictionPolicy& policy);

}  // namespace augur
