#include "engine/engine_setup.h"

#include "configs/config_error.h"

namespace augur {
namespace {

SchedulePolicy policy_of(SchedulePolicyChoice choice) {
  switch (choice) {
    case SchedulePolicyChoice::kFcfs:
      return SchedulePolicy::kFcfs;
    case SchedulePolicyChoice::kLongestPrefix:
      return SchedulePolicy::kLongestPrefixMatch;
    case SchedulePolicyChoice::kPriority:
      return SchedulePolicy::kPriority;
    case SchedulePolicyChoice::kExpertAffinity:
      break;
  }
  return SchedulePolicy::kExpertAffinity;
}

/// Who knows the experts of prompts.
std::unique_ptr<SignatureOracle> make_oracle(LoadedModel& model) {
  ExpertMemory* const memory = model.weights.expert_memory.get();
  if (memory == nullptr || memory->prompt_signature() == nullptr) {
    throw ConfigError("schedule.policy",
                      "expert_affinity needs to know the experts of prompts; accepted: fcfs, lpm, "
                      "priority, or a pool of experts (cache.experts.device_bytes) with "
                      "prefetch.enabled and prefetch.prompt_signature");
  }
  return std::make_unique<SignatureOracle>(*memory->prompt_signature());
}

}  // namespace

EngineSetup make_engine_setup(const EngineConfig& config, LoadedModel& model) {
  EngineSetup setup;
  const ScheduleConfig& schedule = config.schedule;
  if (schedule.policy == SchedulePolicyChoice::kExpertAffinity) setup.oracle = make_oracle(model);
  if (schedule.policy == SchedulePolicyChoice::kLongestPrefix && !config.kv_cache.prefix_cache) {
    throw ConfigError("schedule.policy",
                      "lpm goes by what the prefix cache holds; accepted with "
                      "kv_cache.prefix_cache: true");
  }
  const ModelRunner::Limits& limits = model.decoder->limits();
  setup.options = {.max_batch_size = limits.max_seqs,
                   .max_tokens_per_step = limits.max_tokens,
                   .eos_token_ids = model.config().eos_token_ids,
                   .policy = policy_of(schedule.policy),
                   .affinity = {.oracle = setup.oracle.get(),
                                .window = schedule.affinity_window,
                                .max_overtakes = schedule.affinity_max_overtakes},
                   .fair_queueing = schedule.fair_queueing,
                   .prefix_cache = config.kv_cache.prefix_cache};
  ExpertMemory* const memory = model.weights.expert_memory.get();
  if (memory != nullptr && memory->prompt_signature() != nullptr) {
    // Whose first tokens no step computes would else be unknown to it.
    setup.options.on_admitted = [&signatures = *memory->prompt_signature()](
                                    int64_t sequence_id, std::span<const int32_t> prompt_ids,
                                    int64_t first_position) {
      if (first_position > 0) signatures.begin_sequence(sequence_id, prompt_ids);
    };
  }
  return setup;
}

}  // namespace augur
