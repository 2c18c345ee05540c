// Which KV blocks are free, and how many hold each of the others.
//
// A block is free or held by one or more owners; it returns to the free list with its last one.
// The blocks themselves live in the runner: here they are numbers.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <vector>

namespace augur {

class BlockAllocator {
 public:
  /// Every block is free at first. Requires 0 <= num_blocks < 2^31.
  explicit BlockAllocator(int64_t num_blocks);

  /// Takes a free block, held once. Requires num_free() > 0.
  int32_t allocate();
  /// Adds a holder to a held block.
  void share(int32_t block_id);
  /// Takes one holder off a held block.
  void release(int32_t block_id);

  int num_holders(int32_t block_id) const;
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_blocks() const { return static_cast<int64_t>(num_holders_.size()); }

 private:
  std::vector<int32_t> free_;  // the last one is taken next: it is the likeliest to be in a cache
  std::vector<int32_t> num_holders_;
};

}  // namespace augur
