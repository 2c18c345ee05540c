// The merges of a BPE model, and merging itself.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace augur {

/// Pairs of adjacent tokens that merge: (left, right) -> (rank, merged token). The lowest rank in
/// a word merges first, the leftmost of equals. Immutable once built.
class MergeTable {
 public:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Merge {
    uint32_t rank = kNoRank;
    int32_t merged = -1;
  };

  /// Room for `num_merges`; more must not be added.
  void reserve(size_t num_merges);
  /// A pair added again takes its new rank and token.
  void add(int32_t left, int32_t right, Merge merge);
  Merge find(int32_t left, int32_t right) const;

  /// Working memory of apply, kept between calls. One per thread.
  struct Scratch {
    struct Link {
      uint32_t previous;
      uint32_t next;
    };
    std::vector<Link> links;
    std::vector<uint64_t> queue;
  };
  /// Merges `tokens` until no pair is left that merges; returns how many remain, at the front.
  /// Takes time n log n in the number of tokens. Requires fewer than 2^32 - 1 of them.
  size_t apply(std::span<int32_t> tokens, Scratch& scratch) const;

 private:
  struct Slot {
    uint64_t pair = kEmpty;
    Merge merge;
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;  // no pair: ids are not negative
  size_t slot_of(uint64_t pair) const;
  size_t apply_to_short(std::span<int32_t> tokens) const;
  size_t apply_to_long(std::span<int32_t> tokens, Scratch& scratch) const;

  std::vector<Slot> slots_{1};  // a power of two
  size_t mask_ = 0;
};

}  // namespace augur
