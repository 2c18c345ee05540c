// Who reads experts ahead, as the configuration asks for it.
#pragma once

#include "configs/engine_config.h"
#include "configs/model_config.h"
#include "engine/model/expert_memory.h"
#include "engine/model/model_weights.h"
#include "engine/model/route_memory.h"
#include "kernels/ops.h"

namespace augur {

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
