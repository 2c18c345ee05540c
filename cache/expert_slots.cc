#include "cache/expert_slots.h"

#include <numeric>

namespace augur {

ExpertSlots::ExpertSlots(Ops& ops, const ExpertLayout& layout, int num_moe_layers, int num_experts)
    : layout_(layout),
      num_experts_(num_experts),
      slots_(ops.allocate(num_bytes(layout, num_moe_layers, num_experts))),
      slot_of_expert_(ops.allocate(int64_t{4} * num_moe_layers * num_experts)) {
  std::vector<int32_t> slot_of_expert(static_cast<size_t>(num_moe_layers) * num_experts);
  std::iota(slot_of_expert.begin(), slot_of_expert.end(), 0);
  ops.upload(slot_of_expert_.data(), slot_of_expert.data(), slot_of_expert_.num_bytes());
}

std::byte* ExpertSlots::block(int moe_layer_idx, int expert_idx) {
  return slots_.data() + (int64_t{moe_layer_idx} * num_experts_ + expert_idx) * layout_.block_bytes;
}

ExpertTable ExpertSlots::table(int moe_layer_idx) const {
  ExpertTable table;
  table.slots = slots_.data();
  table.layout = layout_;
  table.slot_of_expert = slot_of_expert_.as<int32_t>() + int64_t{moe_layer_idx} * num_experts_;
  table.num_experts = num_experts_;
  return table;
}

}  // namespace augur
