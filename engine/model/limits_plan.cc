#include "engine/model/limits_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "configs/config_error.h"
#include "engine/model/decoder.h"
#include "engine/model/memory_plan.h"

namespace augur {
namespace {

constexpr int64_t kMinTokensPerStep = 256;
// Where experts are read while a step runs, a prompt reads nearly all of them once for so many rows
// (what the CPU kernels run at once), which costs more than leaving the caches.
constexpr int64_t kMinTokensPerPooledStep = 1024;

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

KvFormat kv_format(KvDtypeChoice dtype, const Ops& ops) {
  if (dtype == KvDtypeChoice::kInt8) {
    if (ops.supports(KvFormat::kInt8)) return KvFormat::kInt8;
    throw ConfigError(
        "kv_cache.dtype",
        fmt::format("int8 runs on the CPU; accepted on {}: auto, bf16", ops.description()));
  }
  if (dtype == KvDtypeChoice::kBF16 && ops.activation_dtype() != DType::kBF16) {
    throw ConfigError("kv_cache.dtype",
                      fmt::format("bf16 is what backends in bf16 keep; accepted on {}: auto, int8",
                                  ops.description()));
  }
  return KvFormat::kNative;
}

}  // namespace

int64_t step_bytes(const ModelConfig& model, const ModelRunner::Limits& limits, const Ops& ops) {
  return Decoder::activation_bytes(model, limits, ops) +
         ops.workspace_bytes(Decoder::step_limits(model, limits, ops));
}

std::string kv_format_name(KvFormat format, const Ops& ops) {
  if (format == KvFormat::kInt8) return "int8";
  return ops.activation_dtype() == DType::kBF16 ? "bf16" : "float32";
}

ModelRunner::Limits plan_limits(const EngineConfig& config,
                                const ModelConfig& model,
                                const Ops& ops,
                                int64_t memory_for_kv_bytes) {
  ModelRunner::Limits limits;
  limits.block_size = config.kv_cache.block_size > 0 ? static_cast<int>(config.kv_cache.block_size)
                                                     : ops.default_kv_block_size();
  limits.kv_format = kv_format(config.kv_cache.dtype, ops);
  limits.vocab_size = model.vocab_size;
  if (config.cache.experts.low_bit.enabled) limits.num_low_bit_experts = model.moe.num_experts;
  limits.max_seqs = config.execution.max_batch_size;
  limits.max_context =
      config.kv_cache.max_context > 0 ? config.kv_cache.max_context : model.max_position_embeddings;
  if (limits.max_context > model.max_position_embeddings) {
    throw ConfigError("kv_cache.max_context",
                      fmt::format("{}; the model has {} positions", limits.max_context,
                                  model.max_position_embeddings));
  }
  limits.max_tokens = config.execution.max_tokens_per_step > 0
                          ? config.execution.max_tokens_per_step
                          : std::max(ops.default_tokens_per_step(), limits.max_seqs);

  const int64_t block_bytes =
      model.num_layers() * ops.kv_block_bytes(limits.block_size, model.attention.num_kv_heads,
                                              model.attention.head_dim, limits.kv_format);
  const int64_t blocks_per_seq = ceil_div(limits.max_context, limits.block_size);
  if (config.kv_cache.bytes > 0) {
    limits.num_kv_blocks = config.kv_cache.bytes / block_bytes;
    if (limits.num_kv_blocks < 1) {
      throw ConfigError("kv_cache.bytes",
                        fmt::format("{} is less than one block of {} positions, {}",
                                    format_bytes(config.kv_cache.bytes), limits.block_size,
                                    format_bytes(block_bytes)));
    }
  } else {
    // One sequence of full length at least, where that can be had at all.
    const int64_t affordable = std::max<int64_t>(1, memory_for_kv_bytes / block_bytes);
    limits.num_kv_blocks = std::min(limits.max_seqs * blocks_per_seq, affordable);
  }
  limits.max_context =
      std::min(limits.max_context, limits.num_kv_blocks * int64_t{limits.block_size});

  const int64_t min_tokens =
      config.cache.experts.device_bytes > 0 ? kMinTokensPerPooledStep : kMinTokensPerStep;
  while (limits.max_tokens / 2 >= std::max(min_tokens, limits.max_seqs) &&
         step_bytes(model, limits, ops) > ops.max_step_bytes()) {
    limits.max_tokens /= 2;
  }
  return limits;
}

std::optional<CompressionPlan> choose_compression(
    const EngineConfig& config,
    const ModelConfig& model,
    const ExpertMemoryPlan& experts,
    const Ops& ops,
    const std::function<ModelRunner::Limits(int64_t expert_bytes, KvFormat)>& limits_for) {
  if (!config.memory.compression.enabled) return {};
  constexpr std::string_view kKey = "memory.compression.enabled";
  if (!experts.is_resident()) {
    throw ConfigError(std::string(kKey),
                      "the experts of a pool are kept in bf16; accepted with "
                      "cache.experts.device_bytes: false. A smaller pool and kv_cache.dtype int8 "
                      "save memory there");
  }
  if (!ops.has_int8_experts() || !ops.supports(KvFormat::kInt8)) {
    throw ConfigError(std::string(kKey), fmt::format("int8 runs on the CPU; accepted on {}: false",
                                                     ops.description()));
  }
  CompressionChoices choices;
  choices.layers = model.layers;
  if (model.moe.num_experts > 0) {
    const auto layer_bytes = [&](ExpertFormat format) {
      return model.moe.num_experts *
             expert_layout(ops, model.hidden_size, model.moe.intermediate_size, format).block_bytes;
    };
    choices.native_layer_bytes = layer_bytes(ExpertFormat::kBF16);
    choices.int8_layer_bytes = layer_bytes(ExpertFormat::kInt8);
  }
  const KvDtypeChoice dtype = config.kv_cache.dtype;
  choices.kv_formats = {kv_format(dtype, ops)};
  if (dtype == KvDtypeChoice::kAuto) choices.kv_formats.push_back(KvFormat::kInt8);
  choices.kv_bytes = [&](int64_t expert_bytes, KvFormat format) {
    ModelRunner::Limits limits = limits_for(expert_bytes, format);
    const int64_t after = Decoder::kv_cache_bytes(model, limits, ops);
    limits.kv_format = KvFormat::kNative;
    return CompressedBytes{Decoder::kv_cache_bytes(model, limits, ops), after};
  };
  return plan_compression(config.memory.compression.ratio, choices);
}

}  // namespace augur
