// Every figure of expert memory as one list of named values, which summaries, reports and metrics
// pages all read, so that they say the same.
//
// A list is a snapshot. Others who have figures of their own append them to the same list.
// Threading: the thread that runs the model; a list, once made, is plain data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache/expert_counters.h"
#include "cache/expert_pool.h"
#include "configs/model_config.h"
#include "engine/model/expert_memory.h"
#include "engine/model/low_bit_experts.h"

namespace augur {

enum class MetricKind : uint8_t {
  kCounter,  // only grows
  kGauge,
};

/// One value. Those of one name stand side by side in a list, and differ in their label.
struct Metric {
  std::string_view name;  // [a-z_]+, its unit last where it has one: "expert_stall_seconds"
  std::string_view help;  // a line for people
  MetricKind kind = MetricKind::kCounter;
  std::string_view label_name;  // "layer", "cause", "outcome"; empty: the value has no label
  std::string label;
  double value = 0;
};

/// What figures and reports of expert memory are made from.
struct ExpertView {
  const ExpertCounters& counters;
  const ExpertPool& pool;
  int64_t slot_bytes = 0;
  std::vector<int> moe_layers;  // numbers of the layers that have experts, rising

  int num_experts() const { return static_cast<int>(moe_layers.size()) * pool.shape().num_experts; }
};

/// The view is valid as long as `memory` is.
ExpertView view_of(const ExpertMemory& memory, const ModelConfig& config);

/// Appends all figures. Ratios of nothing are 0.
void append_expert_metrics(const ExpertView& view, std::vector<Metric>& metrics);
/// Appends what copies of low precision served.
void append_low_bit_metrics(const LowBitCounts& counts, std::vector<Metric>& metrics);

}  // namespace augur
