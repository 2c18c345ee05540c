// Predictors that bring experts into the pool of a replay, through the engine's own planner.
//
// Only reading takes no time here, so nothing comes late and nothing is held up: what is found is
// the most that the same guesses could gain, not what they do.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cache/expert_pool.h"
#include "cache/routing_observer.h"
#include "cache/routing_trace.h"
#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"
#include "prefetch/prefetch_planner.h"
#include "prefetch/prefetch_sink.h"

namespace augur {

struct ReplayPrefetchOptions {
  std::vector<std::string> predictors;  // names
  int max_distance = 2;                 // in layers with experts, as prefetch.distance
  int max_per_layer = 0;                // experts brought while a layer runs; 0: any number
};

/// "transition", "recency" or "prompt_signature". Throws ConfigError for others, and says of those
/// that need the model that they do.
std::unique_ptr<Predictor> make_replay_predictor(std::string_view name,
                                                 const MoeLayers& layers,
                                                 int max_distance);

/// Threading: one thread.
class ReplayPrefetcher final : public RoutingObserver, private PrefetchSink {
 public:
  /// `pool` outlives it. Throws as make_replay_predictor. Requires a predictor.
  ReplayPrefetcher(const RoutingTrace& trace,
                   const ReplayPrefetchOptions& options,
                   ExpertPool& pool);

  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView& routing) override;
  void on_step_end() override { planner_.on_step_end(); }

 private:
  ExpertPlace place(ExpertKey key) const override;
  bool prefetch(ExpertKey key, FetchPriority priority, double probability) override;
  void on_stale(ExpertKey key) override { pool_.give_up_prefetch(key); }

  const int max_per_layer_;
  ExpertPool& pool_;
  PrefetchPlanner planner_;
  int num_begun_ = 0;  // since the last layer's routing
};

}  // namespace augur
