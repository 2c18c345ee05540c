#include "engine/schedule/block_allocator.h"

#include <limits>
#include <string>

#include "kernels/require.h"

namespace augur {

BlockAllocator::BlockAllocator(int64_t num_blocks) {
  AUGUR_REQUIRE(num_blocks >= 0 && num_blocks <= std::numeric_limits<int32_t>::max(),
                "num_blocks is " + std::to_string(num_blocks));
  num_holders_.assign(num_blocks, 0);
  free_.reserve(num_blocks);
  for (int64_t block_id = num_blocks - 1; block_id >= 0; --block_id) {
    free_.push_back(static_cast<int32_t>(block_id));
  }
}

int32_t BlockAllocator::allocate() {
  AUGUR_REQUIRE(!free_.empty(), "all " + std::to_string(num_blocks()) + " blocks are held");
  const int32_t block_id = free_.back();
  free_.pop_back();
  num_holders_[block_id] = 1;
  return block_id;
}

void BlockAllocator::share(int32_t block_id) {
  AUGUR_REQUIRE(num_holders(block_id) > 0, "block " + std::to_string(block_id) + " is free");
  ++num_holders_[block_id];
}

void BlockAllocator::release(int32_t block_id) {
  AUGUR_REQUIRE(num_holders(block_id) > 0, "block " + std::to_string(block_id) + " is free");
  if (--num_holders_[block_id] == 0) free_.push_back(block_id);
}

int BlockAllocator::num_holders(int32_t block_id) const {
  AUGUR_REQUIRE(block_id >= 0 && block_id < num_blocks(),
                "block " + std::to_string(block_id) + " of " + std::to_string(num_blocks()));
  return num_holders_[block_id];
}

}  // namespace augur
