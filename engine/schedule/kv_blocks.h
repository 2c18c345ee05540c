// The KV blocks of all sequences: whose they are, and what is kept of them for others.
//
// A sequence that runs holds blocks for every token it has. The first of them may be those of a
// text that began alike: while a prompt is computed, its whole blocks are put into a tree
// (prefix_cache.h), where others find them. With `keeps_prefixes` the tree is that of the request's
// salt, a sequence that gives its blocks back leaves there what it computed, output too, and all of
// it stays until the memory is needed. Without, completions of one prompt share it by a tree of
// their own, which goes with the request, and other requests share nothing.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/schedule/block_allocator.h"
#include "engine/schedule/prefix_cache.h"
#include "engine/schedule/sequence.h"

namespace augur {

/// Blocks a sequence can begin with.
struct Beginning {
  std::vector<int32_t> blocks;
  int64_t num_idle = 0;  // of them, held by no sequence

  int64_t num_blocks() const { return static_cast<int64_t>(blocks.size()); }
};

class KvBlocks {
 public:
  KvBlocks(int64_t num_blocks, int block_size, bool keeps_prefixes);

  /// A request begins, and ends, when none of its sequences holds a block.
  void open(ActiveRequest& request);
  void close(ActiveRequest& request);

  /// The most blocks a sequence may begin with: of its tokens the last is always computed, and so
  /// is every row whose logits it still needs.
  int64_t max_beginning(const Sequence& sequence) const;
  void find_beginning(const Sequence& sequence, Beginning& beginning) const;
  /// Blocks that are there of a request's prompt. Costs nothing while the tree stays as it is.
  int64_t num_cached_blocks(ActiveRequest& request);

  /// Gives a sequence that holds nothing what was found for it, and further blocks up to
  /// `num_blocks`. Requires that so many are available.
  void begin(Sequence& sequence, const Beginning& beginning, int64_t num_blocks);
  /// Gives a sequence blocks until it has `num_blocks`. Returns false, having done nothing, when
  /// too few are available.
  bool try_grow(Sequence& sequence, int64_t num_blocks);
  /// More of a sequence's prompt has been computed.
  void share_prompt(Sequence& sequence);
  /// Takes all blocks of a sequence.
  void take_back(Sequence& sequence);

  int64_t blocks_for(int64_t num_positions) const {
    return (num_positions + block_size_ - 1) / block_size_;
  }
  int block_size() const { return block_size_; }
  bool keeps_prefixes() const { return keeps_prefixes_; }
  int64_t num_free() const { return allocator_.num_free(); }
  int64_t num_cached() const { return cache_.num_blocks(); }
  int64_t num_idle() const { return cache_.num_idle(); }
  /// Free, or given up by the tree when they are needed.
  int64_t num_available() const { return num_free() + num_idle(); }
  int64_t num_evicted() const { return num_evicted_; }
  /// Gives up all that no sequence holds. Returns how many blocks that were.
  int64_t flush() { return cache_.evict(cache_.num_idle()); }

 private:
  void insert(Sequence& sequence, int64_t num_positions);

  // Constant after construction.
  const int block_size_;
  const bool keeps_prefixes_;

  BlockAllocator allocator_;
  PrefixCache cache_;
  int64_t num_evicted_ = 0;
  std::vector<int32_t> found_;  // of one search
};

}  // namespace augur
