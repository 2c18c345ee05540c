#include "moe/moe_layer.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

bool wants_logits(std::span<RoutingObserver* const> observers) {
  return std::any_of(observers.begin(), observers.end(),
                     [](const RoutingObserver* observer) { return observer->wants_logits(); });
}

RouterArgs router_args(const MoeConfig& config,
                       const MoeLayerWeights& weights,
                       const RoutingBuffers& routing,
                       const Tensor& gate_input) {
  RouterArgs router;
  router.x = gate_input;
  router.weight = weights.router;
  router.correction = weights.correction;
  router.scoring = router_scoring(config);
  router.num_experts = config.num_experts;
  router.top_k = config.top_k;
  router.num_groups = config.num_groups;
  router.top_groups = config.top_groups;
  router.normalise_top_k = config.normalise_top_k;
  router.scaling_factor = config.routed_scaling_factor;
  router.experts = routing.experts;
  router.weights = routing.weights;
  router.num_valid = routing.num_valid;
  router.forced = routing.forced;
  return router;
}

RouterArgs rows_of(const RouterArgs& all, int64_t first, int64_t count) {
  RouterArgs some = all;
  some.x = all.x.rows(first, count);
  if (all.forced != nullptr) some.forced += first * all.top_k;
  some.experts += first * all.top_k;
  some.weights += first * all.top_k;
  if (all.logits.data != nullptr) some.logits = all.logits.rows(first, count);
  return some;
}

/// Runs the gate for the rows that nobody answered for, run by run, and returns their number.
int64_t run_gate(Ops& ops, const RouterArgs& all, std::span<const uint8_t> is_answered) {
  int64_t num_gated = 0;
  for (auto next = is_answered.begin(); next != is_answered.end();) {
    const auto first = std::find(next, is_answered.end(), 0);
    next = std::find_if(first, is_answered.end(), [](uint8_t is) { return is != 0; });
    if (first == next) break;
    ops.router(rows_of(all, first - is_answered.begin(), next - first));
    num_gated += next - first;
  }
  return num_gated;
}

/// Logits of rows whose gate did not run are nobody's: better no number than one of another layer.
void forget_logits(const Tensor& logits, std::span<const uint8_t> is_answered) {
  for (int64_t row = 0; row < std::ssize(is_answered); ++row) {
    if (is_answered[row] == 0) continue;
    std::fill_n(logits.row<float>(row), logits.num_cols, std::numeric_limits<float>::quiet_NaN());
  }
}

/// Routes what the source answers for, and by the gate what it does not.
void route(Ops& ops, int layer_idx, const RouterArgs& router, RouteSource& source) {
  AUGUR_REQUIRE(ops.uses_host_memory() && router.num_valid == nullptr,
                "the host cannot answer for this gate");
  const int64_t num_rows = router.x.num_rows;
  const std::span<const uint8_t> is_answered =
      source.answer(layer_idx, router.x, router.experts, router.weights);
  AUGUR_REQUIRE(is_answered.empty() || std::ssize(is_answered) == num_rows,
                std::to_string(is_answered.size()) + " answers");
  if (router.logits.data != nullptr) forget_logits(router.logits, is_answered);
  const auto start = std::chrono::steady_clock::now();
  int64_t num_gated_rows = num_rows;
  if (is_answered.empty()) {
    ops.router(router);
  } else {
    num_gated_rows = run_gate(ops, router, is_answered);
  }
  const std::chrono::duration<double, std::micro> elapsed =
      std::chrono::steady_clock::now() - start;
  source.learn({.layer_idx = layer_idx,
                .num_rows = num_rows,
                .num_gated_rows = num_gated_rows,
                .gate_us = elapsed.count(),
                .experts = router.experts,
                .weights = router.weights});
}

}  // namespace

RouterScoring router_scoring(const MoeConfig& config) {
  return config.scoring == ExpertScoring::kSigmoid ? RouterScoring::kSigmoid
                                                   : RouterScoring::kSoftmax;
}

void moe_layer(Ops& ops,
               const MoeConfig& config,
               int layer_idx,
               const MoeLayerWeights& weights,
               const RoutingBuffers& routing,
               const Tensor& gate_input,
               const Tensor& x,
               const Tensor& out,
               std::span<RoutingObserver* const> observers,
               RouteSource* source,
               ExpertFeed* feed,
               ExpertSubstitute* substitute) {
  RouterArgs router = router_args(config, weights, routing, gate_input);
  if (wants_logits(observers)) {
    router.logits = dense(routing.logits, DType::kF32, x.num_rows, config.num_experts);
  }
  if (source != nullptr) {
    route(ops, layer_idx, router, *source);
  } else {
    ops.router(router);
  }

  const RoutingView view = {.layer_idx = layer_idx,
                            .num_tokens = x.num_rows,
                            .top_k = config.top_k,
                            .experts = routing.experts,
                            .weights = routing.weights,
                            .gate_input = gate_input,
                            .logits = router.logits};
  for (RoutingObserver* observer : observers) observer->on_routing(view);

  MoeArgs experts;
  experts.x = x;
  experts.experts = routing.experts;
  experts.weights = routing.weights;
  experts.top_k = config.top_k;
  experts.table = weights.experts;
  if (substitute != nullptr) experts.low_bit = substitute->substitute(view, x, routing.experts);
  experts.shared = weights.shared;
  experts.feed = feed;
  experts.out = out;
  ops.moe(experts);
}

}  // namespace augur
