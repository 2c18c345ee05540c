// The figures of a route cache, for the list that summaries and metrics pages read.
// Threading: a report is plain data.
#pragma once

#include <vector>

#include "engine/model/expert_metrics.h"
#include "engine/model/route_memory.h"

namespace augur {

/// Appends every figure. Ratios of nothing are 0. What only a cache by state has is left out for
/// one by tokens, and the other way round.
void append_route_metrics(const RouteReport& report, std::vector<Metric>& metrics);

}  // namespace augur
