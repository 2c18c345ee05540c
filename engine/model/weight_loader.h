// Reading a model's weights from its files into the layout of a backend.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

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

/// Where the experts of a model are to be.
struct ExpertPlaces {
  std::unique_ptr<ExpertMemory> memory;    // brings them while the model runs; null: all are loaded
  std::unique_ptr<LowBitExperts> low_bit;  // their copies beside `memory`, to be filled; or null
  /// What loaded ones are kept as, by layer of the model; empty: all in bf16.
  std::vector<ExpertFormat> formats;
};

/// Told now and then, from one thread, how many of the files' bytes are read.
using LoadProgress = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

/// Reads and packs every weight with `num_threads` threads, the experts as `places` says. Throws
/// ConfigError when a file cannot be read and OutOfMemory. `checkpoint` need not outlive the
/// weights. Requires ops.has_int8_experts() where an expert is to be kept in int8.
ModelWeights load_weights(const ModelConfig& config,
                          const Checkpoint& checkpoint,
                          const WeightPlan& plan,
                          Ops& ops,
                          int64_t max_context,
                          int num_threads,
                          ExpertPlaces places,
                          const LoadProgress& progress);

/// Weights of the right shapes with random values, norms of ones: to measure speed without a
/// checkpoint. Throws OutOfMemory.
ModelWeights generate_weights(const ModelConfig& config, Ops& ops, int64_t max_context);

}  // namespace augur
