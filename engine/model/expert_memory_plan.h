// How much memory experts get, decided before any is taken.
#pragma once

#include <cstdint>
#include <string>

#include "configs/engine_config.h"
#include "configs/model_config.h"
#include "engine/model/expert_memory.h"
#include "kernels/ops.h"
#include "prefetch/expert_store.h"

namespace augur {

struct ExpertMemoryPlan {
  ExpertLayout layout;        // of a slot
  int num_slots = 0;          // 0: every expert has its own memory
  int64_t all_bytes = 0;      // of all experts, in memory of their own
  int64_t low_bit_bytes = 0;  // of their int8 copies beside the pool, where asked for
  std::string description;    // "1536 of 6144 experts (25 %)"

  bool is_resident() const { return num_slots == 0; }
  int64_t pool_bytes() const { return num_slots * layout.block_bytes; }
};

/// Throws ConfigError when the memory given holds fewer experts than one token needs of a layer,
/// the backend cannot work with a pool, or copies are asked for without one.
ExpertMemoryPlan plan_expert_memory(const ExpertCacheConfig& config,
                                    const ModelConfig& model,
                                    const Ops& ops);

/// The parts that the configuration asks for. What is passed outlives what they make.
ExpertMemory::Parts expert_memory_parts(const EngineConfig& config,
                                        const ExpertMemoryPlan& plan,
                                        const ExpertStore& store,
                                        const Ops& ops);

}  // namespace augur
