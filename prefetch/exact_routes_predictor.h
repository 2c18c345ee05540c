// Exact routes as a predictor: a text that ran before is known in all its layers beforehand.
//
// It feeds the routes with what the gates chose, unless they serve: then the layers do that.
// Threading: one thread.
#pragma once

#include "cache/exact_routes.h"
#include "prefetch/predictor.h"

namespace augur {

class ExactRoutesPredictor final : public Predictor {
 public:
  /// `routes` outlives the predictor, which tells it of every step and its routing where it
  /// `feeds` it; else somebody else does before the predictor is asked.
  explicit ExactRoutesPredictor(ExactRoutes& routes, bool feeds = true)
      : routes_(routes), feeds_(feeds) {}

  std::string_view name() const override { return "exact_routes"; }
  void on_step(const StepRows& rows) override {
    if (feeds_) routes_.on_step(rows);
  }
  void on_routing(const RoutingView& routing) override {
    if (feeds_) routes_.record(routing);
  }
  void predict(int target_layer, const Guesses& guesses) override;

 private:
  ExactRoutes& routes_;
  const bool feeds_;
};

}  // namespace augur
