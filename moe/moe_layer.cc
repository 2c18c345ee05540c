#include "moe/moe_layer.h"

#include <algorithm>

namespace augur {

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
               ExpertFeed* feed) {
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
  const bool wants_logits =
      std::any_of(observers.begin(), observers.end(),
                  [](const RoutingObserver* observer) { return observer->wants_logits(); });
  if (wants_logits) {
    router.logits = dense(routing.logits, DType::kF32, x.num_rows, config.num_experts);
  }
  ops.router(router);

  for (RoutingObserver* observer : observers) {
    observer->on_routing({.layer_idx = layer_idx,
                          .num_tokens = x.num_rows,
                          .top_k = config.top_k,
                          .experts = routing.experts,
                          .weights = routing.weights,
                          .gate_input = gate_input,
                          .logits = router.logits});
  }

  MoeArgs experts;
  experts.x = x;
  experts.experts = routing.experts;
  experts.weights = routing.weights;
  experts.top_k = config.top_k;
  experts.table = weights.experts;
  experts.shared = weights.shared;
  experts.feed = feed;
  experts.out = out;
  ops.moe(experts);
}

}  // namespace augur
