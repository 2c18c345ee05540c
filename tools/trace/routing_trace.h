// Recorded routing: which experts every token went to, layer by layer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace augur {

/// Layers without choices have no entry.
struct TracedToken {
  int64_t phase = 0;                                   // 0: of a prompt; 1: generated
  std::map<int32_t, std::vector<int32_t>> experts_of;  // by layer, in order of choice
  int64_t turn = 0;                                    // the request it belongs to
};

struct RoutingTrace {
  std::vector<TracedToken> tokens;
  int32_t num_experts = 0;  // one more than the largest
  int32_t num_layers = 0;   // that have experts

  /// Different (layer, expert) pairs there can be.
  int64_t num_keys() const { return int64_t{num_layers} * num_experts; }
};

/// Reads comma-separated values: a line of column names, of which turn, step, layer and expert must
/// be there and phase may be; lines that begin with # are comments. The lines of one turn, phase
/// and step are a token. Throws ConfigError with file and line.
RoutingTrace read_routing_trace(const std::string& path);

}  // namespace augur
