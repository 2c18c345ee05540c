#include "engine/model/route_memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "configs/config_error.h"

namespace augur {
namespace {

// What is wanted of hints when more is wanted of what is served: see RouteCacheConfig.
constexpr double kHintAgreement = 0.6;

void refuse_what_cannot_run(const EngineConfig& config,
                            const ModelConfig& model,
                            const Ops& ops,
                            bool has_pool) {
  const std::string key = "cache.expert_route.enabled";
  if (model.moe.num_experts == 0) {
    throw ConfigError(key, "the model is dense: it has no gates; accepted here: false");
  }
  if (!ops.uses_host_memory()) {
    throw ConfigError(key, fmt::format("the route cache runs on the CPU; accepted on {}: false, or "
                                       "execution.device cpu",
                                       ops.description()));
  }
  if (config.cache.expert_route.mode == RouteMode::kServe) return;
  if (!has_pool) {
    throw ConfigError("cache.expert_route.mode",
                      "prefetch has nothing to prefetch: all experts stay in memory; accepted "
                      "here: serve, or cache.experts.device_bytes above 0");
  }
  if (!config.prefetch.enabled) {
    throw ConfigError("cache.expert_route.mode",
                      "prefetch foretells for what prefetch.enabled switched off; accepted here: "
                      "serve, or prefetch.enabled true");
  }
}

void refuse_sizes(const ExpertRouteConfig& route, const ModelConfig& model) {
  if (route.dims > model.hidden_size) {
    throw ConfigError(
        "cache.expert_route.dims",
        fmt::format("{}; the model's states have {} values", route.dims, model.hidden_size));
  }
  if (model.hidden_size > Projection::kMaxHiddenSize) {
    throw ConfigError("cache.expert_route.enabled",
                      fmt::format("the model's states have {} values; accepted: up to {}",
                                  model.hidden_size, Projection::kMaxHiddenSize));
  }
  if (route.projection == ProjectionChoice::kPca && route.fit_tokens <= route.dims) {
    throw ConfigError("cache.expert_route.fit_tokens",
                      fmt::format("{} tokens do not tell {} components; accepted: more than dims",
                                  route.fit_tokens, route.dims));
  }
  if (route.similarity_threshold <= 0) {
    throw ConfigError("cache.expert_route.similarity_threshold",
                      "0 would take any state for any other; accepted: above 0, up to 1");
  }
}

void refuse_file(const ExpertRouteConfig& route) {
  const std::string key = "cache.expert_route.projection_file";
  if (route.projection_file.empty()) return;
  if (route.exact || route.projection == ProjectionChoice::kRandom) {
    throw ConfigError(key, fmt::format("{} fits no components; accepted here: empty",
                                       route.exact ? "an exact route cache" : "projection random"));
  }
  // What is fitted after minutes of service should not turn out to have no place.
  const std::filesystem::path folder = std::filesystem::path(route.projection_file).parent_path();
  std::error_code error;
  if (!folder.empty() && !std::filesystem::is_directory(folder, error)) {
    throw ConfigError(key, fmt::format("{} is no folder", folder.string()));
  }
}

RouteCacheConfig by_state(const ExpertRouteConfig& route, const PrefetchConfig& prefetch) {
  RouteCacheConfig config;
  config.mode =
      route.mode == RouteMode::kServe ? RouteCacheMode::kServe : RouteCacheMode::kPrefetch;
  config.capacity = route.capacity;
  config.projection = route.projection == ProjectionChoice::kRandom ? ProjectionKind::kRandom
                                                                    : ProjectionKind::kPca;
  config.dims = static_cast<int>(route.dims);
  config.num_samples = static_cast<int>(std::max(route.fit_tokens, route.dims + 1));
  config.similarity_threshold = static_cast<float>(route.similarity_threshold);
  config.lowest_threshold = std::min(config.lowest_threshold, config.similarity_threshold);
  config.highest_threshold = std::max(config.highest_threshold, config.similarity_threshold);
  config.num_later_layers = static_cast<int>(prefetch.distance);
  config.min_agreement = route.min_agreement;
  config.min_hint_agreement = std::min(kHintAgreement, route.min_agreement);
  return config;
}

}  // namespace

int64_t RouteMemoryPlan::max_bytes() const {
  if (by_state) return RouteCache::max_bytes(shape, *by_state);
  if (by_tokens) return ExactRoutes::max_bytes(*by_tokens);
  return 0;
}

std::string RouteMemoryPlan::description() const {
  const auto num_layers = static_cast<int64_t>(shape.moe_layers.size());
  if (by_tokens) {
    return fmt::format("route cache, {}: {} tokens of known texts",
                       serves ? "serving (exact)" : "foretelling", by_tokens->num_nodes);
  }
  if (!by_state) return "no route cache";
  return fmt::format("route cache, {}: {} states a layer in {} dimensions",
                     serves ? "serving (approximate)" : "foretelling",
                     std::max<int64_t>(by_state->capacity / num_layers, 1), by_state->dims);
}

RouteCacheShape route_cache_shape(const ModelConfig& model) {
  RouteCacheShape shape;
  shape.hidden_size = model.hidden_size;
  shape.num_experts = static_cast<int>(model.moe.num_experts);
  shape.top_k = model.moe.top_k;
  shape.moe_layers = model.moe_layers();
  return shape;
}

RouteMemoryPlan plan_route_memory(const EngineConfig& config,
                                  const ModelConfig& model,
                                  const Ops& ops,
                                  bool has_pool,
                                  int64_t max_tokens) {
  RouteMemoryPlan plan;
  const ExpertRouteConfig& route = config.cache.expert_route;
  if (!route.enabled) return plan;
  refuse_what_cannot_run(config, model, ops, has_pool);
  refuse_file(route);
  plan.serves = route.mode == RouteMode::kServe;
  plan.shape = route_cache_shape(model);
  if (route.exact) {
    const auto num_layers = static_cast<int64_t>(plan.shape.moe_layers.size());
    plan.by_tokens = {
        .moe_layers = plan.shape.moe_layers,
        .top_k = plan.shape.top_k,
        .max_tokens = max_tokens,
        .num_nodes = static_cast<int>(std::max<int64_t>(route.capacity / num_layers, 1))};
    return plan;
  }
  refuse_sizes(route, model);
  plan.by_state = by_state(route, config.prefetch);
  plan.projection_file = route.projection_file;
  return plan;
}

}  // namespace augur
