// Who wants to know what the gates chose.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace augur {

/// The choices of one MoE layer for the rows of one step, in the memory of the backend that ran
/// it; valid until the next layer's.
struct RoutingView {
  int layer_idx = 0;  // of the model, dense layers counted
  int64_t num_tokens = 0;
  int top_k = 0;
  const int32_t* experts = nullptr;  // [num_tokens, top_k]
  const float* weights = nullptr;    // [num_tokens, top_k]
  Tensor gate_input;                 // [num_tokens, hidden] f32
  Tensor logits;                     // [num_tokens, num_experts] f32
};

/// Told of each MoE layer's choices after its gate and before its experts run. It cannot change
/// them.
class RoutingObserver {
 public:
  virtual ~RoutingObserver() = default;
  virtual void on_routing(const RoutingView& routing) = 0;
};

}  // namespace augur
