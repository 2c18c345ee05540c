#include "engine/schedule/block_allocator.h"

#include <gtest/gtest.h>

#include <set>
#include <stdexcept>

namespace augur {
namespace {

TEST(BlockAllocatorTest, HandsOutEveryBlockOnce) {
  BlockAllocator allocator(5);
  std::set<int32_t> blocks;
  for (int i = 0; i < 5; ++i) blocks.insert(allocator.allocate());
  EXPECT_EQ(blocks, (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(allocator.num_free(), 0);
  EXPECT_THROW(allocator.allocate(), std::logic_error);
}

TEST(BlockAllocatorTest, ABlockIsFreeAfterItsLastHolder) {
  BlockAllocator allocator(1);
  const int32_t block = allocator.allocate();
  allocator.share(block);
  EXPECT_EQ(allocator.num_holders(block), 2);
  allocator.release(block);
  EXPECT_EQ(allocator.num_free(), 0);
  allocator.release(block);
  EXPECT_EQ(allocator.num_free(), 1);
  EXPECT_EQ(allocator.allocate(), block);
}

TEST(BlockAllocatorTest, RefusesAFreeOrForeignBlock) {
  BlockAllocator allocator(2);
  EXPECT_THROW(allocator.release(0), std::logic_error);
  EXPECT_THROW(allocator.share(1), std::logic_error);
  EXPECT_THROW(allocator.num_holders(2), std::logic_error);
  EXPECT_THROW(allocator.num_holders(-1), std::logic_error);
  EXPECT_THROW(BlockAllocator(-1), std::logic_error);
  EXPECT_THROW(BlockAllocator(int64_t{1} << 31), std::logic_error);
}

}  // namespace
}  // namespace augur
