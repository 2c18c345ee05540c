// The feed-forward half of a Mixture-of-Experts layer: gate, then the chosen experts.
#pragma once

#include <span>

#include "cache/route_source.h"
#include "cache/routing_observer.h"
#include "configs/model_config.h"
#include "kernels/ops.h"

namespace augur {

/// Weights of one MoE layer, in the backend's memory.
struct MoeLayerWeights {
  const float* router = nullptr;      // [num_experts, hidden]
  const float* correction = nullptr;  // [num_experts], or null
  ExpertTable experts;
  MlpWeights shared;  // shared.gate.data == nullptr: none
};

/// Where a layer's routing is kept during a step, in the backend's memory; shared by all layers.
struct RoutingBuffers {
  int32_t* experts = nullptr;          // [max_tokens, top_k]
  float* weights = nullptr;            // [max_tokens, top_k]
  float* logits = nullptr;             // [max_tokens, num_experts]
  const int32_t* num_valid = nullptr;  // or null; see RouterArgs
  const int32_t* forced = nullptr;     // of this layer, or null; see RouterArgs
};

/// How a model's gates score, as the router operation names it.
RouterScoring router_scoring(const MoeConfig& config);

/// Has some of a layer's choices served by a second form of its experts, so that the first need
/// not be brought.
class ExpertSubstitute {
 public:
  virtual ~ExpertSubstitute() = default;
  /// Adds num_experts to those of `experts` that the second form is to serve, and returns it; see
  /// MoeArgs::low_bit. `routing` is the layer's, after its observers were told, and `experts` its
  /// choices.
  ///   x  [num_tokens, hidden]  activation dtype: what the experts will read
  virtual ExpertTable substitute(const RoutingView& routing, const Tensor& x, int32_t* experts) = 0;
};

/// out = shared(x) + sum over the top_k experts of weight * expert(x).
///   gate_input  [num_tokens, hidden]  f32: x before rounding
///   x           [num_tokens, hidden]  activation dtype
///   out         [num_tokens, hidden]  f32
/// `feed` is null where all experts are in their slots; see MoeArgs. `source`, or null, answers for
/// the gate where it can: the gate runs for the other rows only, whose choices are what they are
/// without it, bit for bit, on backends whose rows do not depend on their number (kernels/ops.h).
/// Requires the host to read the backend's memory, and no padded step, where there is a source.
/// `substitute` is null where every choice is served as it is; after it, routing.experts names what
/// served.
void moe_layer(Ops& ops,
               const MoeConfig& config,
               int layer_idx,
               const MoeLayerWeights& weights,
               const RoutingBuffers& routing,
               const Tensor& gate_input,
               const Tensor& x,
               const Tensor& out,
               std::span<RoutingObserver* const> observers,
               RouteSource* source,
               ExpertFeed* feed,
               ExpertSubstitute* substitute);

}  // namespace augur
