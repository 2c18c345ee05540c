// The route cache of a model: what its gates chose, remembered across steps.
//
// By state (RouteCache: alike states, approximate) or by tokens (ExactRoutes: the same text,
// exact). Serving, it answers for the gates; otherwise the predictor it makes foretells from it and
// feeds it. The decoder tells it of each step before anybody else, and asks it in each MoE layer.
//
// A cache by state begins without projections where no file has them: it samples, fits them, and
// writes the file where one was asked for. A file that cannot be written is told once, and the
// cache goes on.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "cache/exact_routes.h"
#include "cache/route_cache.h"
#include "cache/route_source.h"
#include "cache/routing_observer.h"
#include "engine/model/route_memory_plan.h"
#include "prefetch/predictor.h"

namespace augur {

/// What happened since the start.
struct RouteReport {
  /// Of a layer, or of all.
  struct Gate {
    int64_t num_rows = 0;
    int64_t num_answered_rows = 0;  // the gate did not run for
    int64_t num_gated_rows = 0;
    double gate_us = 0;     // running the gate, for the rows gated
    double look_up_us = 0;  // looking up, for all rows; by tokens, finding a step's texts comes on
                            // top: RouteReport::find_texts_us

    Gate& operator+=(const Gate& other);
  };
  struct Layer {
    int layer_idx = 0;  // of the model
    Gate gate;
    RouteCache::LayerReport by_state;  // all zero in a cache by tokens
  };

  bool serves = false;
  bool is_exact = false;  // by tokens
  std::vector<Layer> layers;
  ExactRoutes::Counts by_tokens;  // all zero in a cache by state
  double find_texts_us = 0;

  Gate total_gate() const;
  RouteCounts total_by_state() const;
  int num_switched_off() const;
};

class RouteMemory final : public RoutingObserver, public RouteSource {
 public:
  /// Steps have up to `max_tokens` rows. Requires a plan that is on. Reads the projection file
  /// where there is one: throws ConfigError for a damaged one, or another model's.
  RouteMemory(const RouteMemoryPlan& plan, int64_t max_tokens);
  RouteMemory(const RouteMemory&) = delete;
  RouteMemory& operator=(const RouteMemory&) = delete;

  void on_step(const StepRows& rows) override;
  /// Nothing: learn() is told more.
  void on_routing(const RoutingView& routing) override {}
  void on_step_end() override;

  std::span<const uint8_t> answer(int layer_idx,
                                  const Tensor& gate_input,
                                  int32_t* experts,
                                  float* weights) override;
  void learn(const GateRun& run) override;

  /// Foretells from what is remembered; this outlives it. Unless this serves, it is also what feeds
  /// this: one of them, then, and told of every step and all routing.
  std::unique_ptr<Predictor> make_predictor();

  /// Whether results differ from those of a model without it.
  bool is_lossy() const { return plan_.is_lossy(); }
  RouteReport report() const;
  /// The cache by state, or null.
  RouteCache* by_state() { return by_state_ ? &*by_state_ : nullptr; }

 private:
  RouteReport::Gate& gate_of(int layer_idx);
  void answer_by_state(int layer_idx, const Tensor& gate_input, int32_t* experts, float* weights);
  void answer_by_tokens(int layer_idx, int64_t num_rows, int32_t* experts, float* weights);
  void save_projections_once();

  // Constant after construction.
  const RouteMemoryPlan plan_;
  std::vector<int> moe_idx_of_layer_;
  // Changed by the steps.
  std::optional<RouteCache> by_state_;
  std::optional<ExactRoutes> by_tokens_;
  bool is_to_be_saved_ = false;
  std::vector<RouteReport::Gate> gates_;  // by MoE layer
  double find_texts_us_ = 0;
  std::vector<RowOutcome> outcomes_;  // [max_tokens]
  std::vector<uint8_t> is_answered_;  // [max_tokens], of the layer asked last
};

}  // namespace augur
