// The plan of a decode step's attention, made by every thread block for itself from the context
// lengths: the list of items (a chunk of a unit of a sequence), in order of sequence, unit, chunk.
//
// Each block begins with the item of its own index. Then it draws the next ones from a counter, so
// that none waits for a slower one; items that are all short are taken in steps of the grid, since
// a draw would take longer than what it evens out.
#pragma once

#include "kernels/cuda/decode_attention_plan.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda::decode {

/// The block's draws, known to all its warps: turn t's item at t % kMaxDraws. Warps are at most as
/// many turns apart as a ring has stages, and a few.
constexpr int kMaxDraws = 32;

/// In shared memory.
struct Plan {
  int* item_start;           // [num_seqs + 1]: items of the sequences before
  int* context;              // [num_seqs]
  volatile uint64_t* draws;  // [kMaxDraws]: the turn, above 32 bits of the item
};

__host__ __device__ constexpr int64_t plan_bytes(int num_seqs, int num_warps) {
  return int64_t{kMaxDraws} * 8 + (int64_t{2} * num_seqs + 1 + num_warps) * 4;
}

/// The first position of the sequence that its row sees.
__device__ __forceinline__ int first_visible(int context, int window) {
  return window > 0 && context > window ? context - window : 0;
}
__device__ __forceinline__ int first_loaded(int context, int window) {
  return first_visible(context, window) & ~(kKvPieceRows - 1);
}
__device__ __forceinline__ int visible_tiles(int context, int window) {
  return (context - first_loaded(context, window) + kDecodeTileRows - 1) / kDecodeTileRows;
}

/// All threads of the block call it.
template <int kThreads>
__device__ __forceinline__ Plan make_plan(const DecodeAttentionParams& p, int* smem) {
  Plan plan;
  plan.draws = reinterpret_cast<volatile uint64_t*>(smem);
  plan.item_start = smem + 2 * kMaxDraws;
  plan.context = plan.item_start + p.num_seqs + 1;
  int* const warp_items = plan.context + p.num_seqs;
  if (threadIdx.x < kMaxDraws) plan.draws[threadIdx.x] = ~uint64_t{0};

  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int per_thread = (p.num_seqs + kThreads - 1) / kThreads;
  const int first = min(static_cast<int>(threadIdx.x) * per_thread, p.num_seqs);
  const int last = min(first + per_thread, p.num_seqs);
  int items = 0;
  for (int seq = first; seq < last; ++seq) {
    const int context = __ldcg(p.context_len + seq);
    plan.context[seq] = context;
    plan.item_start[seq] = items;
    items += num_chunks(visible_tiles(context, p.window), p.rule) * p.units_per_seq;
  }
  int up_to_here = items;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(~0u, up_to_here, distance);
    if (lane >= distance) up_to_here += other;
  }
  if (lane == 31) warp_items[warp] = up_to_here;
  __syncthreads();
  int before = up_to_here - items;
  for (int i = 0; i < warp; ++i) before += warp_items[i];
  for (int seq = first; seq < last; ++seq) plan.item_start[seq] += before;
  if (threadIdx.x == kThreads - 1) plan.item_start[p.num_seqs] = before + items;
  __syncthreads();
  return plan;
}

/// Walks over the items of a block.
struct ItemCursor {
  int turn = 0;  // how many items came before
  int seq = 0;
  int unit = 0;
  int chunk = 0;
  int num_chunks = 0;  // of the unit
  int pos = 0;         // of the chunk
  int end = 0;
  bool is_done = true;

  __device__ __forceinline__ void go_to(const DecodeAttentionParams& p,
                                        const Plan& plan,
                                        int index) {
    is_done = index >= plan.item_start[p.num_seqs];
    if (is_done) return;
    // The last sequence that starts at or before the item: it has some.
    int low = 0;
    int high = p.num_seqs;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (plan.item_start[middle] <= index ? low : high) = middle;
    }
    seq = low;
    const int context = plan.context[seq];
    const int tiles = visible_tiles(context, p.window);
    num_chunks = cuda::num_chunks(tiles, p.rule);
    const int in_seq = index - plan.item_start[seq];
    unit = in_seq / num_chunks;
    chunk = in_seq % num_chunks;
    const int begin = first_loaded(context, p.window);
    pos = begin + chunk * tiles / num_chunks * kDecodeTileRows;
    end = min(begin + (chunk + 1) * tiles / num_chunks * kDecodeTileRows, context);
  }

  __device__ __forceinline__ void start(const DecodeAttentionParams& p, const Plan& plan) {
    go_to(p, plan, blockIdx.x);
  }

  /// Goes to the next item, if the block knows it already. All lanes of a warp call it.
  __device__ __forceinline__ bool try_next(const DecodeAttentionParams& p, const Plan& plan) {
    int index = static_cast<int>(blockIdx.x + (turn + 1) * gridDim.x);
    if (p.draws_items && plan.item_start[p.num_seqs] > static_cast<int>(gridDim.x)) {
      // One lane's look for all: they must agree.
      const uint64_t draw = __shfl_sync(~0u, plan.draws[(turn + 1) % kMaxDraws], 0);
      if (draw >> 32 != static_cast<uint64_t>(turn + 1)) return false;
      index = static_cast<int>(draw);
    }
    ++turn;
    go_to(p, plan, index);
    return true;
  }

  /// Draws the item after this one for the whole block. One thread of each block calls it, once
  /// per item. All blocks together draw as often as there are items: the last resets the counter.
  __device__ __forceinline__ void draw_next(const DecodeAttentionParams& p,
                                            const Plan& plan) const {
    const int num_items = plan.item_start[p.num_seqs];
    if (!p.draws_items || num_items <= static_cast<int>(gridDim.x)) return;
    const int draw = atomicAdd(p.num_drawn, 1);
    if (draw == num_items - 1) *p.num_drawn = 0;
    plan.draws[(turn + 1) % kMaxDraws] = static_cast<uint64_t>(turn + 1) << 32 | (gridDim.x + draw);
  }
};

}  // namespace augur::cuda::decode
