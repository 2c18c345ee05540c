// Exact routes as a predictor: a text that ran before is known in all its layers beforehand.
// Threading: one thread.
#pragma once

#include "cache/exact_routes.h"
#include "prefetch/predictor.h"

namespace augur {

class ExactRoutesPredictor final : public Predictor {
 public:
  /// `routes` outlives the predictor, which tells it of every step.
  explicit ExactRoutesPredictor(ExactRoutes& routes) : routes_(routes) {}

  std::string_view name() const override { return "exact_routes"; }
  void on_step(const StepRows& rows) override { routes_.on_step(rows); }
  void on_routing(const RoutingView& routing) override { routes_.record(routing); }
  void predict(int target_layer, const Guesses& guesses) override;

 private:
  ExactRoutes& routes_;
};

}  // namespace augur
