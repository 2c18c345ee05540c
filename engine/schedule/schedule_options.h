// How requests are put in order, and what is kept for those that come later.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "engine/schedule/affinity.h"

namespace augur {

/// Who is admitted next. No answer depends on it.
enum class SchedulePolicy : uint8_t {
  kFcfs,                // who came first
  kLongestPrefixMatch,  // whose prompt is in the prefix cache with the most tokens
  kPriority,            // whose priority is lowest; of those who came first. May preempt others
  kExpertAffinity,      // whose experts are most like those of the ones that run
};

/// Told of each sequence when it is admitted, again after a preemption, before the step that
/// computes its first rows: its number (StepBatch::sequence_ids), its prompt, and the position of
/// the first row that is computed. Calls nothing of the engine and throws nothing.
using AdmissionObserver = std::function<void(
    int64_t sequence_id, std::span<const int32_t> prompt_ids, int64_t first_position)>;

struct ScheduleOptions {
  SchedulePolicy policy = SchedulePolicy::kFcfs;
  // The oracle is that of kExpertAffinity, which needs one. The window and max_overtakes bound how
  // far kExpertAffinity and kLongestPrefixMatch reorder.
  AffinityOptions affinity;
  bool fair_queueing = false;       // tenants take turns by the tokens they were served
  bool prefix_cache = false;        // keys and values are kept for requests that begin alike
  AdmissionObserver on_admitted{};  // may be empty
};

}  // namespace augur
