// The blocks of prompts that the step being planned will compute.
//
// A sequence that would compute the same blocks in the same step does better to wait for the next
// step and begin behind them. A block is known by what is before it (a block of the tree, or its
// root) and by its tokens; the tree has no two blocks for one beginning, so that is enough.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "engine/schedule/kv_blocks.h"
#include "engine/schedule/sequence.h"

namespace augur {

class PrefixesUnderWay {
 public:
  explicit PrefixesUnderWay(int block_size) : block_size_(block_size) {}

  void clear() { entries_.clear(); }
  /// A running sequence will be computed up to `end` in this step.
  void add(const Sequence& sequence, int64_t end);
  /// How many blocks behind `beginning`, with which `sequence` could begin now, it could begin with
  /// after this step as well; at most `max_blocks` with the beginning.
  int64_t num_common(const Sequence& sequence,
                     const Beginning& beginning,
                     int64_t max_blocks) const;

 private:
  struct Entry {
    const Sequence* sequence;
    int64_t end_block;
  };

  const int block_size_;
  // By a hash of the first block computed and what is before it.
  std::unordered_multimap<uint64_t, Entry> entries_;
};

}  // namespace augur
