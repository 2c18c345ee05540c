// Predicts a later layer by asking its gate now: the gate of layer t on the gate input of layer l.
//
// The hidden state changes little from layer to layer, so a gate ahead of its time is mostly right,
// the less so the further ahead it looks. A guess costs the reading of one gate's weights.
// Threading: one thread, that of the Ops.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "kernels/ops.h"
#include "prefetch/predictor.h"

namespace augur {

/// The weights of one layer's gate, in the backend's memory; see RouterArgs.
struct LayerGate {
  int layer = 0;                      // of the model
  const float* weight = nullptr;      // [num_experts, hidden]
  const float* correction = nullptr;  // [num_experts], or null
};

/// What all gates of a model have in common; see RouterArgs.
struct GateRules {
  RouterScoring scoring = RouterScoring::kSoftmax;
  int num_experts = 0;
  int num_groups = 1;
  int top_groups = 1;
};

class GateLookahead final : public Predictor {
 public:
  /// `ops` and the weights outlive it. Requires a backend whose memory the host reads, whose
  /// reserve() was called for the model's steps, and a gate at most once per layer.
  GateLookahead(Ops& ops, const GateRules& rules, const std::vector<LayerGate>& gates);

  std::string_view name() const override { return "gate_lookahead"; }
  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView& routing) override;
  /// Guesses in the order in which the gate would choose. Where it admits fewer experts than the
  /// width (those of its best groups), the ranks behind them stay empty: the gate rates the others
  /// by groups that it did not choose. Requires a gate of `target_layer`, and the gate input last
  /// observed to be in place still.
  void predict(int target_layer, const Guesses& guesses) override;

 private:
  Ops& ops_;
  const GateRules rules_;
  std::vector<LayerGate> gates_;  // by layer; without weights where there is none
  int source_layer_ = -1;         // of gate_input_
  Tensor gate_input_;
  std::vector<int32_t> experts_;  // [num_tokens, ranks]
  std::vector<float> weights_;
};

}  // namespace augur
