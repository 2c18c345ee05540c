// How large the steps and the KV cache of a decoder are, and what is kept in int8, decided with the
// memory there is and before a weight is read.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "configs/engine_config.h"
#include "configs/model_config.h"
#include "engine/model/compression_plan.h"
#include "engine/model/expert_memory_plan.h"
#include "engine/model/step_batch.h"
#include "kernels/ops.h"

namespace augur {

/// The limits a decoder gets from the configuration and the model; num_kv_blocks and max_tokens
/// are settled with the memory there is. Throws ConfigError for a kv_cache.dtype that `ops` does
/// not keep, a max_context beyond the model's, and a cache of less than one block.
ModelRunner::Limits plan_limits(const EngineConfig& config,
                                const ModelConfig& model,
                                const Ops& ops,
                                int64_t memory_for_kv_bytes);

/// Activations and scratch of a step.
int64_t step_bytes(const ModelConfig& model, const ModelRunner::Limits& limits, const Ops& ops);

/// For people: "int8", or what the backend keeps by itself.
std::string kv_format_name(KvFormat format, const Ops& ops);

/// What the configuration asks for of experts, keys and values in int8; nothing where it asks for
/// none. `limits_for` gives the limits where experts take so many bytes. Throws ConfigError for a
/// ratio that cannot be reached and where int8 does not run.
std::optional<CompressionPlan> choose_compression(
    const EngineConfig& config,
    const ModelConfig& model,
    const ExpertMemoryPlan& experts,
    const Ops& ops,
    const std::function<ModelRunner::Limits(int64_t expert_bytes, KvFormat)>& limits_for);

}  // namespace augur
