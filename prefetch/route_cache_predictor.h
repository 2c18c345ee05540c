// The route cache as a predictor: a state like one seen before foretells the next layers' experts.
//
// In prefetch mode it feeds the cache with what the gates chose; in serve mode the layers do that.
// Threading: one thread.
#pragma once

#include "cache/route_cache.h"
#include "prefetch/predictor.h"

namespace augur {

class RouteCachePredictor final : public Predictor {
 public:
  /// `cache` outlives the predictor.
  explicit RouteCachePredictor(RouteCache& cache) : cache_(cache) {}

  std::string_view name() const override { return "route_cache"; }
  void on_step(const StepRows& rows) override { cache_.begin_step(); }
  void on_routing(const RoutingView& routing) override;
  /// What was found at the nearest earlier layer comes first, then what layers before it add.
  void predict(int target_layer, const Guesses& guesses) override;

 private:
  RouteCache& cache_;
};

}  // namespace augur
