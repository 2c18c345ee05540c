// Experts for every layer and row, made up or recorded, to measure with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "configs/model_config.h"

namespace augur::bench {

/// "gate": the gates' own choices. "balanced": every expert equally often, each of a run of rows
/// once before any twice. "power-law:A": expert r-th in a random order of each layer with a
/// weight of 1 / r^A. "trace:FILE": a recorded trace (docs/augur-bench.md), its tokens in order,
/// over again when there are more rows.
struct RoutingChoice {
  std::string text = "gate";
};

/// [num_layers, num_rows, top_k], -1 in layers without experts; empty for "gate". Throws
/// ConfigError for another word, a file that cannot be read, or a trace that does not fit the
/// model.
std::vector<int32_t> make_routing_table(const RoutingChoice& choice,
                                        const ModelConfig& config,
                                        int64_t num_rows);

}  // namespace augur::bench
