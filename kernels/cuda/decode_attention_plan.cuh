// The plan of a decode step's attention, made by every thread block for itself from the context
// lengths: the list of items (a chunk of a unit of a sequence), in order of sequence, unit, chunk.
//
// Teams (thread blocks, or clusters of them that share each item's tiles) begin with the item of
// their own index. Blocks on their own then draw the next ones from a counter, so that none waits
// for a slower one; clusters, used where there are about as many items as clusters, go on in steps
// of the number of clusters.
#pragma once

#include "kernels/cuda/decode_attention_plan.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda::decode {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;

/// The block's draws, known to all its warps: turn t's item at t % kMaxDraws. Warps are at most as
/// many turns apart as a ring has stages, and a few.
constexpr int kMaxDraws = 32;

/// In shared memory.
struct Plan {
  int* item_start;           // [num_seqs + 1]: items of the sequences before
  int* context;              // [num_seqs]
  volatile uint64_t* draws;  // [kMaxDraws]: the turn, above 32 bits of the item
  int team;                  // index of this block's cluster, or of the block
  int num_teams;
  int rank;  // of the block in its cluster
};

__host__ __device__ constexpr int64_t plan_bytes(int num_seqs) {
  return int64_t{kMaxDraws} * 8 + (int64_t{2} * num_seqs + 1 + kWarps) * 4;
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
__device__ __forceinline__ Plan make_plan(const DecodeAttentionParams& p, int rank, int* smem) {
  Plan plan;
  plan.draws = reinterpret_cast<volatile uint64_t*>(smem);
  plan.item_start = smem + 2 * kMaxDraws;
  plan.context = plan.item_start + p.num_seqs + 1;
  plan.team = blockIdx.x / p.cluster_size;
  plan.num_teams = gridDim.x / p.cluster_size;
  plan.rank = rank;
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

/// Walks over the items of a team.
struct ItemCursor {
  int turn = 0;  // how many items came before
  int seq = 0;
  int unit = 0;
  int chunk = 0;
  int num_chunks = 0;  // of the unit
  int pos = 0;         // of this block's part of the chunk
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
    // The cluster's blocks share the chunk's tiles evenly.
    const int parts = num_chunks * p.cluster_size;
    const int part = chunk * p.cluster_size + plan.rank;
    const int begin = first_loaded(context, p.window);
    pos = begin + part * tiles / parts * kDecodeTileRows;
    end = min(begin + (part + 1) * tiles / parts * kDecodeTileRows, context);
  }

  __device__ __forceinline__ void start(const DecodeAttentionParams& p, const Plan& plan) {
    go_to(p, plan, plan.team);
  }

  /// Goes to the next item, if the block knows it already. All lanes of a warp call it.
  __device__ __forceinline__ bool try_next(const DecodeAttentionParams& p, const Plan& plan) {
    int index = plan.team + (turn + 1) * plan.num_teams;
    if (p.cluster_size == 1 && plan.item_start[p.num_seqs] > plan.num_teams) {
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
    if (p.cluster_size > 1 || num_items <= plan.num_teams) return;
    const int draw = atomicAdd(p.num_drawn, 1);
    if (draw == num_items - 1) *p.num_drawn = 0;
    plan.draws[(turn + 1) % kMaxDraws] =
        static_cast<uint64_t>(turn + 1) << 32 | static_cast<uint32_t>(plan.num_teams + draw);
  }
};

}  // namespace augur::cuda::decode
