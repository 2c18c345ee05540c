// What the route cache is to be, decided before any memory is taken.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "cache/exact_routes.h"
#include "cache/route_cache.h"
#include "configs/engine_config.h"
#include "configs/model_config.h"
#include "kernels/ops.h"

namespace augur {

/// At most one of the two caches.
struct RouteMemoryPlan {
  bool serves = false;  // answers for gates; otherwise it only foretells
  RouteCacheShape shape;
  std::optional<RouteCacheConfig> by_state;
  std::optional<ExactRoutesShape> by_tokens;
  std::filesystem::path projection_file;  // empty: none

  bool is_on() const { return by_state || by_tokens; }
  /// Whether results differ from those of a model without it.
  bool is_lossy() const { return serves && by_state; }
  /// What it may take.
  int64_t max_bytes() const;
  /// "route cache, serving (approximate): 10922 states a layer in 16 dimensions"
  std::string description() const;
};

/// The rows of `config` that are looked up in a model `model`, by layer. Requires a MoE layer.
RouteCacheShape route_cache_shape(const ModelConfig& model);

/// `has_pool`: experts do not all stay in memory. `max_tokens`: rows of a step at most. Throws
/// ConfigError for what cannot work together: a dense model, a backend whose memory the host does
/// not read, hints that nobody would use, more dimensions than the model's states or the sample
/// have, a projection file that no projection comes from.
RouteMemoryPlan plan_route_memory(const EngineConfig& config,
                                  const ModelConfig& model,
                                  const Ops& ops,
                                  bool has_pool,
                                  int64_t max_tokens);

}  // namespace augur
