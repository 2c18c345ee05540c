// What people are told of expert memory: closing lines, and reports in files.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/model/expert_metrics.h"
#include "engine/model/low_bit_experts.h"
#include "engine/model/route_memory.h"

namespace augur::score {

/// Closing lines of a run of `seconds`.
std::vector<std::string> expert_summary_lines(const ExpertView& view, double seconds);

/// Of a route cache, and of copies of low precision: what they did, and that it is lossy where it
/// is.
std::string route_summary_line(const RouteReport& report);
std::string low_bit_summary_line(const LowBitCounts& counts);

/// An object of names and values; those with a label are objects in turn, of labels and values.
std::string metrics_json(std::span<const Metric> metrics);

/// Those that are not told layer by layer, for a summary.
std::vector<Metric> without_layers(std::span<const Metric> metrics);

/// All of `metrics`, then every layer and every expert of `view`. `model` is its name, any text in
/// UTF-8.
std::string expert_report_json(const ExpertView& view,
                               std::span<const Metric> metrics,
                               const std::string& model);

}  // namespace augur::score
