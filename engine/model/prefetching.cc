#include "engine/model/prefetching.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "prefetch/gate_lookahead.h"
#include "prefetch/recency.h"
#include "prefetch/transition_table.h"

namespace augur {

MoeLayers moe_layers_of(const ModelConfig& model) {
  return {model.moe_layers(), static_cast<int>(model.moe.num_experts)};
}

std::unique_ptr<Predictor> make_gate_lookahead(const ModelConfig& model,
                                               const ModelWeights& weights,
                                               Ops& ops) {
  std::vector<LayerGate> gates;
  for (int layer = 0; layer < model.num_layers(); ++layer) {
    const MoeLayerWeights& moe = weights.layers[layer].moe;
    if (model.layers[layer] == LayerKind::kMoe)
      gates.push_back({layer, moe.router, moe.correction});
  }
  const GateRules rules = {.scoring = router_scoring(model.moe),
                           .num_experts = static_cast<int>(model.moe.num_experts),
                           .num_groups = model.moe.num_groups,
                           .top_groups = model.moe.top_groups};
  return std::make_unique<GateLookahead>(ops, rules, gates);
}

ExpertMemory::Prefetching make_prefetching(const PrefetchConfig& config,
                                           const ModelConfig& model,
                                           const ModelWeights& weights,
                                           int64_t expert_bytes,
                                           Ops& ops,
                                           RouteMemory* routes) {
  ExpertMemory::Prefetching prefetching;
  if (!config.enabled) return prefetching;
  const MoeLayers layers = moe_layers_of(model);
  std::vector<std::unique_ptr<Predictor>> predictors;
  if (config.gate_lookahead) predictors.push_back(make_gate_lookahead(model, weights, ops));
  if (config.transition) {
    predictors.push_back(
        std::make_unique<TransitionTable>(layers, static_cast<int>(config.distance)));
  }
  if (config.recency) predictors.push_back(std::make_unique<Recency>(layers, Recency::Options{}));
  if (config.prompt_signature) {
    auto signature = std::make_unique<PromptSignature>(layers, PromptSignature::Options{});
    prefetching.prompt_signature = signature.get();
    predictors.push_back(std::move(signature));
  }
  if (routes != nullptr) predictors.push_back(routes->make_predictor());
  if (predictors.empty()) return prefetching;
  if (config.adapts) {
    prefetching.budget =
        std::make_unique<PrefetchBudget>(PrefetchBudget::Options{.expert_bytes = expert_bytes});
  }
  const PrefetchPlanner::Options options = {
      .max_distance = static_cast<int>(config.distance),
      .width = std::min(2 * model.moe.top_k, static_cast<int>(model.moe.num_experts)),
      .top_k = model.moe.top_k};
  prefetching.planner =
      std::make_unique<PrefetchPlanner>(layers, std::move(predictors), expert_bytes, options,
                                        weights.expert_memory->sink(), prefetching.budget.get());
  return prefetching;
}

}  // namespace augur
