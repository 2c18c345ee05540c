#include "tools/replay/replay_prefetcher.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "configs/config_error.h"
#include "prefetch/prompt_signature.h"
#include "prefetch/recency.h"
#include "prefetch/transition_table.h"
#include "tools/replay/predictor_replay.h"

namespace augur {
namespace {

constexpr char kAccepted[] = "transition, recency, prompt_signature";

std::vector<std::unique_ptr<Predictor>> make_predictors(const ReplayPrefetchOptions& options,
                                                        const MoeLayers& layers) {
  std::vector<std::unique_ptr<Predictor>> predictors;
  for (const std::string& name : options.predictors) {
    predictors.push_back(make_replay_predictor(name, layers, options.max_distance));
  }
  return predictors;
}

// As the engine sets it.
PrefetchPlanner::Options planner_options(const RoutingTrace& trace,
                                         const ReplayPrefetchOptions& options) {
  PrefetchPlanner::Options planner;
  planner.max_distance = options.max_distance;
  planner.width = std::min(2 * trace.top_k(), trace.num_experts);
  planner.top_k = trace.top_k();
  return planner;
}

}  // namespace

std::unique_ptr<Predictor> make_replay_predictor(std::string_view name,
                                                 const MoeLayers& layers,
                                                 int max_distance) {
  if (name == "transition") return std::make_unique<TransitionTable>(layers, max_distance);
  if (name == "recency") return std::make_unique<Recency>(layers, Recency::Options{});
  if (name == "prompt_signature") {
    return std::make_unique<PromptSignature>(layers, PromptSignature::Options{});
  }
  if (name == "gate_lookahead" || name == "route_cache") {
    throw ConfigError("--predictor",
                      fmt::format("{} looks at hidden states, which a trace does not hold: it runs "
                                  "with the model only; accepted here: {}",
                                  name, kAccepted));
  }
  throw ConfigError("--predictor", fmt::format("found \"{}\"; accepted: {}", name, kAccepted));
}

// An expert counts as one byte: no budget of bytes is spent here.
ReplayPrefetcher::ReplayPrefetcher(const RoutingTrace& trace,
                                   const ReplayPrefetchOptions& options,
                                   ExpertPool& pool)
    : max_per_layer_(options.max_per_layer),
      pool_(pool),
      planner_(moe_layers_of(trace),
               make_predictors(options, moe_layers_of(trace)),
               /*expert_bytes=*/1,
               planner_options(trace, options),
               /*sink=*/*this,
               /*budget=*/nullptr) {}

void ReplayPrefetcher::on_step(const StepRows& rows) {
  num_begun_ = 0;
  planner_.on_step(rows);
}

void ReplayPrefetcher::on_routing(const RoutingView& routing) {
  num_begun_ = 0;
  planner_.on_routing(routing);
}

ExpertPlace ReplayPrefetcher::place(ExpertKey key) const {
  return pool_.is_resident(key)   ? ExpertPlace::kResident
         : pool_.is_fetching(key) ? ExpertPlace::kOnTheWay
                                  : ExpertPlace::kAbsent;
}

bool ReplayPrefetcher::prefetch(ExpertKey key, FetchPriority priority, double) {
  if (max_per_layer_ > 0 && num_begun_ >= max_per_layer_) return false;
  const PrefetchResult result = pool_.prefetch(key, priority);
  num_begun_ += result == PrefetchResult::kStarted;
  pool_.poll();  // it is there at once
  return result != PrefetchResult::kNoRoom;
}

}  // namespace augur
