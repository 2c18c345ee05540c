#include "cache/expert_slots.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/cpu/reference_ops.h"

namespace augur {
namespace {

TEST(ExpertSlotsTest, GivesEveryExpertOfEveryLayerItsOwnBlock) {
  const auto ops = make_reference_ops(1);
  const ExpertLayout layout = expert_layout(*ops, /*hidden_size=*/48, /*intermediate_size=*/20);
  ExpertSlots slots(*ops, layout, /*num_moe_layers=*/3, /*num_experts=*/5);
  std::set<std::byte*> blocks;
  for (int layer = 0; layer < 3; ++layer) {
    const ExpertTable table = slots.table(layer);
    EXPECT_EQ(table.num_experts, 5);
    for (int expert = 0; expert < 5; ++expert) {
      std::byte* const block = slots.block(layer, expert);
      blocks.insert(block);
      // What the kernels read through the table is the block that was filled.
      EXPECT_EQ(table.slots + table.slot_of_expert[expert] * table.layout.block_bytes, block);
    }
  }
  EXPECT_EQ(blocks.size(), 15u);
  EXPECT_EQ(*blocks.rbegin() - *blocks.begin() + layout.block_bytes,
            ExpertSlots::num_bytes(layout, 3, 5));
}

TEST(ExpertSlotsTest, LaysTheThreeMatricesOutWithoutOverlap) {
  const auto ops = make_reference_ops(1);
  const ExpertLayout layout = expert_layout(*ops, 48, 20);
  EXPECT_EQ(layout.up_offset % 64, 0);
  EXPECT_EQ(layout.down_offset % 64, 0);
  EXPECT_GE(layout.up_offset, ops->packed_bytes(MatrixUse::kMlp, 20, 48));
  EXPECT_GE(layout.down_offset - layout.up_offset, ops->packed_bytes(MatrixUse::kMlp, 20, 48));
  EXPECT_GE(layout.block_bytes - layout.down_offset, ops->packed_bytes(MatrixUse::kMlp, 48, 20));
}

}  // namespace
}  // namespace augur
