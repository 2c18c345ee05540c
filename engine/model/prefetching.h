// Who reads experts ahead, as the configuration asks for it.
#pragma once

#include <memory>

#include "configs/engine_config.h"
#include "configs/model_config.h"
#include "engine/model/expert_memory.h"
#include "engine/model/model_weights.h"
#include "engine/model/route_memory.h"
#include "kernels/ops.h"
#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"

namespace augur {

MoeLayers moe_layers_of(const ModelConfig& model);

/// Over the gates of all layers. `weights` and `ops` outlive it.
std::unique_ptr<Predictor> make_gate_lookahead(const ModelConfig& model,
                                               const ModelWeights& weights,
                                               Ops& ops);

/// Predictors, the planner over them and its budget, for the pool of `weights.expert_memory`. No
/// planner where prefetching is off or no predictor is on. What `routes`, where there is one,
/// remembers is a predictor too. `weights`, `ops` and `routes` outlive it.
ExpertMemory::Prefetching make_prefetching(const PrefetchConfig& config,
                                           const ModelConfig& model,
                                           const ModelWeights& weights,
                                           int64_t expert_bytes,
                                           Ops& ops,
                                           RouteMemory* routes);

}  // namespace augur
