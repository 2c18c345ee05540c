#include "engine/model/expert_memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "configs/config_error.h"
#include "engine/model/low_bit_experts.h"
#include "engine/model/memory_plan.h"
#include "prefetch/loader.h"

namespace augur {
namespace {

// Slots begin at multiples of this, so that a packed file can be read straight into them.
constexpr int64_t kSlotAlignment = 4096;

// A use counts half after so many tokens: on a trace of Qwen3-30B-A3B the best of 4 to 64.
constexpr double kLfuHalfLifeTokens = 12;

std::unique_ptr<EvictionPolicy> make_policy(EvictionChoice choice,
                                            int num_slots,
                                            double uses_per_token) {
  switch (choice) {
    case EvictionChoice::kLru:
      return make_lru_policy(num_slots);
    case EvictionChoice::kLfu:
      return make_lfu_policy(num_slots, kLfuHalfLifeTokens * uses_per_token);
    case EvictionChoice::kLeastStale:
      return make_least_stale_policy(num_slots);
  }
  return nullptr;
}

}  // namespace

ExpertMemoryPlan plan_expert_memory(const ExpertCacheConfig& config,
                                    const ModelConfig& model,
                                    const Ops& ops) {
  ExpertMemoryPlan plan;
  if (model.moe.num_experts == 0) return plan;
  plan.layout = expert_layout(ops, model.hidden_size, model.moe.intermediate_size);
  const int64_t num_keys = int64_t{model.num_moe_layers()} * model.moe.num_experts;
  plan.all_bytes = plan.layout.block_bytes * num_keys;
  if (config.device_bytes == 0) {
    if (config.low_bit.enabled) {
      throw ConfigError("cache.experts.low_bit.enabled",
                        "copies serve experts outside a pool; accepted where all experts stay in "
                        "memory (cache.experts.device_bytes 0): false");
    }
    return plan;
  }
  if (!ops.uses_host_memory()) {
    throw ConfigError("cache.experts.device_bytes",
                      "a pool of experts runs on the CPU; accepted here: 0, or "
                      "execution.device cpu");
  }
  int64_t& block_bytes = plan.layout.block_bytes;
  block_bytes = (block_bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
  const int64_t num_slots = std::min(config.device_bytes / block_bytes, num_keys);
  if (num_slots < model.moe.top_k) {
    throw ConfigError(
        "cache.experts.device_bytes",
        fmt::format(
            "{} holds {} experts of {}; accepted: 0, or at least {} for the {} experts that "
            "a token needs of a layer ({} keep all that it needs of the model)",
            format_bytes(config.device_bytes), num_slots, format_bytes(block_bytes),
            format_bytes(block_bytes * model.moe.top_k), model.moe.top_k,
            format_bytes(block_bytes * model.moe.top_k * model.num_moe_layers())));
  }
  plan.num_slots = static_cast<int>(num_slots);
  plan.description =
      fmt::format("pool of {} of {} experts ({:.0f} %)", num_slots, num_keys,
                  100.0 * static_cast<double>(num_slots) / static_cast<double>(num_keys));
  if (config.low_bit.enabled) plan.low_bit_bytes = LowBitExperts::num_bytes(model, ops);
  return plan;
}

ExpertMemory::Parts expert_memory_parts(const EngineConfig& config,
                                        const ExpertMemoryPlan& plan,
                                        const ExpertStore& store,
                                        const Ops& ops) {
  ExpertMemory::Parts parts;
  parts.num_slots = plan.num_slots;
  parts.make_policy = [choice = config.cache.experts.policy](int num_slots, double uses_per_token) {
    return make_policy(choice, num_slots, uses_per_token);
  };
  const LoaderOptions options = {.num_workers = static_cast<int>(config.execution.prefetch_workers),
                                 .direct_io = config.cache.experts.direct_io,
                                 .verify = config.cache.experts.verify};
  parts.make_fetcher = [&store, &ops, options](const SlotMemory& slots) {
    return std::make_unique<Loader>(store, ops, slots, options);
  };
  return parts;
}

}  // namespace augur
