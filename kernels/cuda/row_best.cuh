// Finding the best few tokens of a row without sorting it.
//
// The best keys of parts of the row bound from below what the best few are; the tokens that reach
// the bound, hardly more than wanted, are listed and sorted. Where too many do, the callers go
// other ways.
#pragma once

#include "kernels/cuda/row_slice.cuh"

namespace augur::cuda {

/// Tokens that may be chosen from; more are handled otherwise.
inline constexpr int kListCapacity = 512;
/// Each of these parts of a slice has a best key: a slice has at least r tokens as good as the r-th
/// of them.
inline constexpr int kNumGroups = 128;

struct GroupScratch {
  Key thread_keys[kRowThreads];
  Key group_keys[kNumGroups];
  int ranks[kRowThreads];
};

/// Keys that so many tokens of the slice reach; 0 when there are not so many groups.
struct SliceBounds {
  Key best;
  Key share;  // its share of `num_wanted`: of all blocks together that many reach the least
  Key all;    // num_wanted tokens reach it
};

/// `bounds`: shared memory, set after the barrier that follows.
__device__ __forceinline__ void find_bounds(Key best_of_this_thread,
                                            int num_wanted,
                                            int num_blocks,
                                            GroupScratch& scratch,
                                            SliceBounds& bounds) {
  const int thread = static_cast<int>(threadIdx.x);
  const int share = (num_wanted + num_blocks - 1) / num_blocks;
  scratch.thread_keys[thread] = best_of_this_thread;
  if (thread == 0) bounds = {0, 0, 0};
  __syncthreads();
  const int group = thread % kNumGroups;
  if (thread < kNumGroups) {
    Key key = best_of_this_thread;
    for (int i = thread + kNumGroups; i < kRowThreads; i += kNumGroups) {
      key = max(key, scratch.thread_keys[i]);
    }
    scratch.group_keys[group] = key;
  }
  __syncthreads();
  // Rank by counting: each thread compares one group with a part of the others.
  constexpr int kCompared = kNumGroups * kNumGroups / kRowThreads;
  const Key key = scratch.group_keys[group];
  const int first = thread / kNumGroups * kCompared;
  int rank = 0;
#pragma unroll 8
  for (int i = first; i < first + kCompared; ++i) rank += scratch.group_keys[i] > key ? 1 : 0;
  scratch.ranks[thread] = rank;
  __syncthreads();
  if (thread < kNumGroups) {
    for (int i = thread + kNumGroups; i < kRowThreads; i += kNumGroups) rank += scratch.ranks[i];
    if (rank == 0) bounds.best = key;
    if (rank == share - 1) bounds.share = key;
    if (rank == num_wanted - 1) bounds.all = key;
  }
}

/// A key that at least num_wanted tokens of the row reach, if it has as many. parts[i].bounds:
/// those of block i.
template <int kBlocks, typename Part>
__device__ __forceinline__ Key row_bound(const Part* parts) {
  Key least_share = kAboveAll;
  Key best_all = 0;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    least_share = min(least_share, parts[i].bounds.share);
    best_all = max(best_all, parts[i].bounds.all);
  }
  return max(least_share, best_all);
}

/// Tokens of the whole row, in the shared memory of its first block.
template <int kBlocks>
struct KeyList {
  static constexpr int kRegion = 2 * kListCapacity / kBlocks;
  Key regions[kBlocks][kRegion];  // of the blocks that listed them
  Key keys[kListCapacity];        // of all, together
  Key sorted[kListCapacity];
};

/// Adds a token to this block's region. Of `num_listed`, in shared memory of the listing block, all
/// count; only kRegion are there.
template <int kBlocks>
__device__ __forceinline__ void list_token(KeyList<kBlocks>& list, int& num_listed, Key key) {
  const int place = atomicAdd(&num_listed, 1);
  if (place >= KeyList<kBlocks>::kRegion) return;
  *in_block<kBlocks>(&list.regions[block_rank<kBlocks>()][place], 0) = key;
}

/// Whether a list is whole; parts[i].num_listed tokens are of block i.
template <int kBlocks, typename Part>
__device__ __forceinline__ bool is_whole(const Part* parts) {
  int count = 0;
  bool fits = true;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    count += parts[i].num_listed;
    fits = fits && parts[i].num_listed <= KeyList<kBlocks>::kRegion;
  }
  return fits && count <= kListCapacity;
}

/// Sorts keys[0, count) into sorted, best first; there after __syncthreads.
template <int kBlocks>
__device__ __forceinline__ void sort_keys(KeyList<kBlocks>& list, int count) {
  static_assert(kListCapacity == kRowThreads);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= count) return;
  const Key key = list.keys[thread];
  int rank = 0;
#pragma unroll 4
  for (int i = 0; i < count; ++i) rank += list.keys[i] > key ? 1 : 0;
  list.sorted[rank] = key;
}
/// The same for a whole list, after a row barrier; called by the first block. Returns the count.
template <int kBlocks, typename Part>
__device__ __forceinline__ int sort_list(KeyList<kBlocks>& list, const Part* parts) {
  const int thread = static_cast<int>(threadIdx.x);
  int count = 0;
#pragma unroll
  for (int i = 0; i < kBlocks; ++i) {
    const int place = thread - count;
    count += parts[i].num_listed;
    if (place >= 0 && thread < count) list.keys[thread] = list.regions[i][place];
  }
  __syncthreads();
  sort_keys(list, count);
  return count;
}

}  // namespace augur::cuda
