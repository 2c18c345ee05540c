// Who wants to know what the gates chose.
#pragma once

#include <cstdint>

#include "cache/step_rows.h"
#include "kernels/tensor.h"

namespace augur {

/// The choices of one MoE layer for the rows of one step, in the memory of the backend that ran
/// it; valid until the next layer's.
struct RoutingView {
  int layer_idx = 0;  // of the model, dense layers counted
  int64_t num_tokens = 0;
  int top_k = 0;
  const int32_t* experts = nullptr;  // [num_tokens, top_k], by falling score
  const float* weights = nullptr;    // [num_tokens, top_k]
  Tensor gate_input;                 // [num_tokens, hidden] f32
  // [num_tokens, num_experts] f32; absent unless asked for, NaN in rows whose gate did not run
  // (route_source.h).
  Tensor logits;
};

/// Told of each MoE layer's choices after its gate and before its experts run. It cannot change
/// them. Of a step, on_step comes first, then on_routing layer by layer, then on_step_end, which
/// does not come when the step fails.
class RoutingObserver {
 public:
  virtual ~RoutingObserver() = default;
  virtual void on_step(const StepRows& rows) {}
  virtual void on_routing(const RoutingView& routing) = 0;
  virtual void on_step_end() {}
  /// Whether RoutingView::logits are wanted.
  virtual bool wants_logits() const { return false; }
};

}  // namespace augur
