// The memory experts live in: slots of one size, and for each layer the slot every expert is in.
//
// Kernels address an expert as a slot of one pool through the layer's table, so that which expert
// lies where can change without touching what runs. Every expert has a slot of its own here.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "kernels/weights.h"

namespace augur {

class ExpertSlots {
 public:
  /// Allocates slots for all experts of `num_moe_layers` layers. Throws OutOfMemory.
  ExpertSlots(Ops& ops, const ExpertLayout& layout, int num_moe_layers, int num_experts);

  static int64_t num_bytes(const ExpertLayout& layout, int num_moe_layers, int num_experts) {
    return layout.block_bytes * num_moe_layers * num_experts;
  }

  /// The block to fill with an expert's weights. `moe_layer_idx` counts MoE layers only.
  std::byte* block(int moe_layer_idx, int expert_idx);
  /// What the moe operation reads for a layer.
  ExpertTable table(int moe_layer_idx) const;

 private:
  ExpertLayout layout_;
  int num_experts_;
  Buffer slots_;
  Buffer slot_of_expert_;  // i32 [num_moe_layers, num_experts]
};

}  // namespace augur
