// The plan of a decode step's attention, made by every thread block for itself from the context
// lengths: which items (a chunk of a unit of a sequence) the block works on.
//
// Items stand in order of sequence, unit and chunk; each costs its tiles. The block of index j
// takes the items that start in the j-th of num_blocks equal parts of the total cost, so no block
// has more than one item above its share.
#pragma once

#include "kernels/cuda/decode_attention_plan.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda::decode {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;

/// In shared memory.
struct Plan {
  int* tile_start;  // [num_seqs + 1]: tiles of the sequences before
  int* context;     // [num_seqs]
  int* num_chunks;  // [num_seqs]
};

__host__ __device__ constexpr int64_t plan_bytes(int num_seqs) {
  return (int64_t{3} * num_seqs + 1 + kWarps) * 4;
}

/// The first position of the sequence that its row sees.
__device__ __forceinline__ int first_visible(int context, int window) {
  return window > 0 && context > window ? context - window : 0;
}
__device__ __forceinline__ int first_loaded(int context, int window) {
  return first_visible(context, window) & ~(kKvPieceRows - 1);
}

/// All threads of the block call it.
__device__ __forceinline__ Plan make_plan(const DecodeAttentionParams& p, int* smem) {
  const Plan plan = {smem + kWarps, smem + kWarps + p.num_seqs + 1,
                     smem + kWarps + 2 * p.num_seqs + 1};
  int* const warp_tiles = smem;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int per_thread = (p.num_seqs + kThreads - 1) / kThreads;
  const int first = min(static_cast<int>(threadIdx.x) * per_thread, p.num_seqs);
  const int last = min(first + per_thread, p.num_seqs);
  int tiles = 0;
  for (int seq = first; seq < last; ++seq) {
    const int context = __ldcg(p.context_len + seq);
    const int own =
        (context - first_loaded(context, p.window) + kDecodeTileRows - 1) / kDecodeTileRows;
    plan.context[seq] = context;
    plan.num_chunks[seq] = num_chunks(own, p.rule);
    plan.tile_start[seq] = tiles;
    tiles += own;
  }
  int up_to_here = tiles;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(~0u, up_to_here, distance);
    if (lane >= distance) up_to_here += other;
  }
  if (lane == 31) warp_tiles[warp] = up_to_here;
  __syncthreads();
  int before = up_to_here - tiles;
  for (int i = 0; i < warp; ++i) before += warp_tiles[i];
  for (int seq = first; seq < last; ++seq) plan.tile_start[seq] += before;
  if (threadIdx.x == kThreads - 1) plan.tile_start[p.num_seqs] = before + tiles;
  __syncthreads();
  return plan;
}

/// Walks over the items of one block.
struct ItemCursor {
  int seq;
  int unit;
  int chunk;
  int num_tiles;   // of the unit
  int num_chunks;  // of the unit
  int cost_left;   // of the block's part when the item starts; done when none is left

  __device__ __forceinline__ bool is_done() const { return cost_left <= 0; }

  __device__ __forceinline__ void enter(const Plan& plan) {
    num_tiles = plan.tile_start[seq + 1] - plan.tile_start[seq];
    num_chunks = plan.num_chunks[seq];
  }
  __device__ __forceinline__ int first_tile() const { return chunk * num_tiles / num_chunks; }
  __device__ __forceinline__ int end_tile() const { return (chunk + 1) * num_tiles / num_chunks; }

  __device__ __forceinline__ void next(const DecodeAttentionParams& p, const Plan& plan) {
    cost_left -= end_tile() - first_tile();
    if (++chunk < num_chunks || cost_left <= 0) return;
    chunk = 0;
    if (++unit < p.units_per_seq) return;
    unit = 0;
    do ++seq;  // there is one: cost is left
    while (plan.tile_start[seq + 1] == plan.tile_start[seq]);
    enter(plan);
  }
};

__device__ __forceinline__ ItemCursor first_item(const DecodeAttentionParams& p, const Plan& plan) {
  const int64_t total = int64_t{plan.tile_start[p.num_seqs]} * p.units_per_seq;
  const int64_t num_blocks = gridDim.x;
  int start = static_cast<int>((blockIdx.x * total + num_blocks - 1) / num_blocks);
  const int end = static_cast<int>(((blockIdx.x + 1) * total + num_blocks - 1) / num_blocks);
  ItemCursor item = {};
  if (start >= end) return item;
  // The last sequence that starts at or before `start`: it has tiles.
  int low = 0;
  int high = p.num_seqs;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (plan.tile_start[middle] * p.units_per_seq <= start ? low : high) = middle;
  }
  item.seq = low;
  item.enter(plan);
  const int in_seq = start - plan.tile_start[low] * p.units_per_seq;
  item.unit = in_seq / item.num_tiles;
  const int in_unit = in_seq % item.num_tiles;
  item.chunk = (in_unit * item.num_chunks + item.num_tiles - 1) / item.num_tiles;
  // The chunk before may reach into this part: it belongs to the block where it starts.
  item.cost_left = end - start - (item.first_tile() - in_unit);
  if (item.cost_left > 0 && item.chunk == item.num_chunks) {
    --item.chunk;  // next() steps over it, and takes its tiles from the cost
    item.cost_left += item.end_tile() - item.first_tile();
    item.next(p, plan);
  }
  return item;
}

}  // namespace augur::cuda::decode
