// The figures of a route cache as named values, for summaries and metrics pages.
// Threading: a report is plain data.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "engine/model/route_memory.h"

namespace augur {

/// One value; those of one name differ in their layer.
struct RouteMetric {
  std::string_view name;  // [a-z_]+, its unit last where it has one
  std::string_view help;  // a line for people
  bool is_counter = true;
  std::optional<int> layer;  // of the model; none: of all layers
  double value = 0;
};

/// Every figure, those of one name one after another. Ratios of nothing are 0. What only a cache by
/// state has is left out for one by tokens, and the other way round.
void for_each_route_metric(const RouteReport& report,
                           const std::function<void(const RouteMetric&)>& emit);

}  // namespace augur
