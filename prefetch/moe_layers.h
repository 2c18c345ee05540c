// The MoE layers of a model, as predictors count them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/routing_observer.h"

namespace augur {

/// Layers have two names: their number in the model, dense layers counted, and their index among
/// the MoE layers, which is what distances are measured in.
class MoeLayers {
 public:
  /// `layers` are the model's numbers of the MoE layers. Requires at least one, rising, from 0 on;
  /// num_experts >= 1.
  MoeLayers(std::vector<int> layers, int num_experts);

  int num_layers() const { return static_cast<int>(layers_.size()); }
  int num_experts() const { return num_experts_; }
  /// One more than the model's number of the last MoE layer.
  int end_layer() const { return layers_.back() + 1; }
  /// The model's number. Requires 0 <= index < num_layers().
  int layer(int index) const { return layers_[index]; }
  /// Requires `layer` to be a MoE layer.
  int index_of(int layer) const;
  /// The same, and requires every choice to be an expert or -1. For routing in host memory.
  int checked_index(const RoutingView& routing) const;

 private:
  std::vector<int> layers_;
  std::vector<int> index_of_;  // by the model's number; -1: dense
  int num_experts_;
};

/// The choices of one row, by falling score. For routing in host memory.
inline std::span<const int32_t> choices_of(const RoutingView& routing, int64_t row_idx) {
  return {routing.experts + row_idx * routing.top_k, static_cast<size_t>(routing.top_k)};
}

}  // namespace augur
