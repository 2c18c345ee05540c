// Recorded routing: which experts every token went to, layer by layer.
//
// A trace is a file of comma-separated values: comment lines that begin with #, a line of column
// names, then either
//   step,turn,phase,position,layer,experts[,weights]   what RoutingRecorder writes: a line for each
//       token and layer, `experts` and `weights` with blanks between; tokens of one `step` ran
//       together; `turn` is the sequence
//   turn,step,layer,expert[,phase]   the form other projects publish: a line for each choice, the
//       lines of one turn, phase and step are a token that ran alone; positions are counted
// in any order of columns; further columns are read past. `phase` is 0 for a prompt's token, 1 for
// a generated one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace augur {

/// Layers without choices have no entry.
struct TracedToken {
  int64_t turn = 0;                                    // the request it belongs to
  int64_t step = 0;                                    // tokens of one step ran together
  int64_t phase = 0;                                   // 0: of a prompt; 1: generated
  int64_t position = 0;                                // in its request
  std::map<int32_t, std::vector<int32_t>> experts_of;  // by layer, in order of choice

  bool is_generated() const { return phase != 0; }
};

struct RoutingTrace {
  std::vector<TracedToken> tokens;  // in the order in which they ran; of a step, decoding first
  int32_t num_experts = 0;          // one more than the largest
  int32_t num_layers = 0;           // that have experts

  /// Different (layer, expert) pairs there can be.
  int64_t num_keys() const { return int64_t{num_layers} * num_experts; }
  /// The most experts of one token's layer.
  int top_k() const;
};

/// Throws ConfigError with file and line.
RoutingTrace read_routing_trace(const std::string& path);

}  // namespace augur
