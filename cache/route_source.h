// Who answers for the gates of MoE layers where it can: a cache of what they chose before.
//
// Of a layer in a step, answer() comes before the gate and learn() after it, for the rows that the
// gate was run for. Memory is the host's.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/tensor.h"

namespace augur {

/// What is known of a layer's routing once its gate has run.
struct GateRun {
  int layer_idx = 0;  // of the model
  int64_t num_rows = 0;
  int64_t num_gated_rows = 0;        // of them, those that the gate was run for
  double gate_us = 0;                // what that took
  const int32_t* experts = nullptr;  // [num_rows, top_k]
  const float* weights = nullptr;    // [num_rows, top_k]
};

class RouteSource {
 public:
  virtual ~RouteSource() = default;
  /// Fills in experts and weights of the rows of `gate_input` [num_rows, hidden] f32 that the gate
  /// need not run for. Returns whether it is so by row, valid until the next call; empty: for none.
  ///   experts, weights  [num_rows, top_k]
  virtual std::span<const uint8_t> answer(int layer_idx,
                                          const Tensor& gate_input,
                                          int32_t* experts,
                                          float* weights) = 0;
  virtual void learn(const GateRun& run) = 0;
};

}  // namespace augur
