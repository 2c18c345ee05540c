#include "moe/moe_layer.h"

#include <algorithm>

namespace augur {

void moe_layer(Ops& ops,
               const MoeConfig& config,
               int layer_idx,
               const MoeLayerWeights& weights,
               const RoutingBuffers& routing,
               const Tensor& gate_input,
               const Tensor& x,
               const Tensor& out,
               std::span<RoutingObserver* const> observers,
               ExpertFeed* feed,
               ExpertSubstitute* substitute) {
  RouterArgs router;
  router.x = gate_input;
  router.weight = weights.router;
  router.correction = weights.correction;
  router.scoring =
      config.scoring == ExpertScoring::kSigmoid ? RouterScoring::kSigmoid : RouterScoring::kSoftmax;
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
