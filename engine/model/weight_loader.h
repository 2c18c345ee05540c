// Reading a model's weights from its files into the layout of a backend.
#pragma once

#include <cstdint>
#include <functional>

#include "configs/model_config.h"
#include "engine/model/checkpoint.h"
#include "engine/model/model_weights.h"
#include "engine/model/weight_plan.h"
#include "kernels/ops.h"

namespace augur {

/// Bytes of the weights once packed by `ops`, rotary tables of `max_context` positions included.
int64_t packed_weight_bytes(const ModelConfig& config, const Ops& ops, int64_t max_context);
/// Bytes of all experts among them.
int64_t packed_expert_bytes(const ModelConfig& config, const Ops& ops);

/// Told now and then, from one thread, how many of the files' bytes are read.
using LoadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

/// Reads and packs every weight with `num_threads` threads, but for the experts where
/// `expert_memory` will bring them (else it is null). Throws ConfigError when a file cannot be read
/// and OutOfMemory. `checkpoint` need not outlive the weights.
ModelWeights load_weights(const ModelConfig& config,
                          const Checkpoint& checkpoint,
                          const WeightPlan& plan,
                          Ops& ops,
                          int64_t max_context,
                          int num_threads,
                          std::unique_ptr<ExpertMemory> expert_memory,
                          const LoadProgress& progress);

/// Weights of the right shapes with random values, norms of ones: to measure speed without a
/// checkpoint. Throws OutOfMemory.
ModelWeights generate_weights(const ModelConfig& config, Ops& ops, int64_t max_context);

}  // namespace augur
