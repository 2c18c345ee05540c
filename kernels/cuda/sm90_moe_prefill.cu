#include "kernels/cuda/sm90_moe_prefill.h"

#include <algorithm>

#include "kernels/cuda/gated_mlp.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/wgmma.cuh"

// Tokens are the M operand of wgmma and weight rows the N operand: one instruction then takes 256
// weight rows, which reads the least shared memory per product (64 x 256: 80 bytes a clock, 128 x
// 128 the other way round: 96), and a thread ends with neighbouring columns of a row.
//
// A block makes tiles of 128 token rows by 256 weight rows. One warpgroup fills a ring of stages,
// 64 columns of K each: weight tiles and h by bulk copies, rows of x gathered by cp.async or, laid
// out in tiles by a launch before, copied as h is; two warpgroups multiply 64 token rows each and
// share nothing but the stages. h is kept in tiles [plan tile][64 columns][128 rows] in the swizzle
// of the weights, so that a stage's rows are one copy.
//
// Two blocks form a cluster and take neighbouring token tiles of the plan against the same weight
// rows: where both tiles belong to one expert, each copies half of the weights to both, without
// which reading L2 would be the limit (48 KiB per 4.2 MFLOP: 8 TB/s at 700 TFLOP/s).

namespace augur::cuda {
namespace {

constexpr int kTileTokens = 128;
constexpr int kTileWeights = 256;
constexpr int kStrips = kTileWeights / kTileRows;  // of a tile
constexpr int kStages = 4;
constexpr int kClusterSize = 2;
constexpr int kRowBytes = kTileCols * 2;

constexpr int kWarpgroup = 128;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = kWarpgroup * (1 + kConsumers);
constexpr int kConsumerTokens = kTileTokens / kConsumers;

// Weights as they lie in the slots and become an operand: bf16 tiles, used as they are.
struct Bf16Weights {
  static constexpr int kBytes = static_cast<int>(kTileBytes);  // of 64 rows by 64 columns
  static constexpr int kStepBytes = 32;                        // from 16 columns to the next
  static __device__ uint64_t operand(uint32_t smem) { return smem_descriptor(smem); }
};
using Weights = Bf16Weights;

constexpr int kWeightBytes = kStrips * Weights::kBytes;
constexpr int kTokenBytes = kTileTokens * kRowBytes;
constexpr int kStageBytes = kWeightBytes + kTokenBytes;
// Where a consumer warp turns its fragments into rows: 16 rows by 128 columns, padded by 16 bytes
// so that eight rows lie in different banks.
constexpr int kWarpRows = 16;
constexpr int kResultCols = 128;
constexpr int kPaddedRowBytes = kResultCols * 2 + 16;
constexpr int kResultBytes = kWarpRows * kPaddedRowBytes;
constexpr int kConsumerWarps = kConsumers * kWarpgroup / 32;
constexpr int kSmemBytes = kStages * kStageBytes + kConsumerWarps * kResultBytes + 2 * kStages * 8;

// Plan tiles whose column blocks are worked through before the next tiles': 2,048 rows of tokens
// stay in L2 while the weight rows pass by.
constexpr int kGroupTiles = 16;

// --- Instructions of clusters, matrix stores, fences

__device__ __forceinline__ uint32_t block_in_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;\n" ::
                   : "memory");
}
/// Arrives at the barrier at the same address in another block of the cluster.
__device__ __forceinline__ void barrier_arrive_remote(uint32_t smem_barrier, uint32_t block) {
  asm volatile(
      "{\n.reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}\n" ::"r"(smem_barrier),
      "r"(block)
      : "memory");
}
/// Four 8x8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void store_matrix_x4(
    uint32_t smem, uint32_t r0, uint32_t r1, uint32_t r2, uint32_t r3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};\n" ::"r"(smem),
               "r"(r0), "r"(r1), "r"(r2), "r"(r3)
               : "memory");
}
/// Ordinary writes to device memory, by kernels before this one, become visible to bulk copies.
__device__ __forceinline__ void fence_async_global() {
  asm volatile("fence.proxy.async.global;\n" ::: "memory");
}
__device__ __forceinline__ uint4 load_shared(uint32_t smem) {
  uint4 value;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(smem)
               : "memory");
  return value;
}
constexpr uint64_t kEvictNormal = 0x1000000000000000;

// --- The order of work

// Work items of a cluster: pairs of neighbouring token tiles by blocks of weight rows, in groups of
// kGroupTiles tiles.
struct Schedule {
  int num_tiles;
  int num_col_blocks;

  struct Place {
    int tile_idx;  // of the calling block; num_tiles and more: there is no such tile
    int col_block;
  };
  __device__ int num_pairs() const { return (num_tiles + kClusterSize - 1) / kClusterSize; }
  __device__ int num_items() const { return num_pairs() * num_col_blocks; }
  __device__ Place place(int item_idx) const {
    if (item_idx >= num_items()) return {num_tiles, 0};
    constexpr int kGroupPairs = kGroupTiles / kClusterSize;
    const int group = item_idx / (kGroupPairs * num_col_blocks);
    const int in_group = item_idx - group * kGroupPairs * num_col_blocks;
    const int pairs = min(kGroupPairs, num_pairs() - group * kGroupPairs);
    const int pair = group * kGroupPairs + in_group % pairs;
    return {pair * kClusterSize + static_cast<int>(block_in_cluster()), in_group / pairs};
  }
  __device__ MoeTile tile(const GatedMlp& mlp, int tile_idx) const {
    return tile_idx < num_tiles ? mlp.tile(tile_idx) : MoeTile{-1, 0, 0, 0};
  }
};
__device__ int first_item() {
  return blockIdx.x / kClusterSize;
}
__device__ int item_stride() {
  return gridDim.x / kClusterSize;
}

// The ring of stages as one role walks it.
struct Ring {
  uint32_t base;
  uint32_t full;   // barriers: the stage's data are there
  uint32_t empty;  // every consumer that reads the stage is done
  int stage = 0;
  uint32_t parity = 0;

  __device__ uint32_t weights() const { return base + stage * kStageBytes; }
  __device__ uint32_t tokens() const { return weights() + kWeightBytes; }
  __device__ uint32_t full_barrier() const { return full + stage * 8; }
  __device__ uint32_t empty_barrier() const { return empty + stage * 8; }
  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// --- The producer

// What a kernel multiplies, and where its token rows come from.
enum class Product {
  kGateUpOfRows,   // gate and up, rows of x gathered
  kGateUpOfTiles,  // gate and up, rows of x as gather_tiles laid them
  kDown,           // down, rows of h as gate and up left them
};
constexpr bool is_gate_up(Product product) {
  return product != Product::kDown;
}
constexpr bool gathers(Product product) {
  return product == Product::kGateUpOfRows;
}

// Warps of the producer that copy weights, one thread each: all where there is nothing else to do,
// one where the rest gather rows.
constexpr int num_copy_warps(Product product) {
  return gathers(product) ? 1 : kStrips;
}

// What one of these warps copies of an item's weights. Strips 0 and 1 are gate and 2 and 3 up, or
// all are down. Where the cluster's tiles share weights, this block brings half of the strips to
// both.
template <Product kProduct>
struct WeightCopy {
  static constexpr bool kIsGateUp = is_gate_up(kProduct);
  static constexpr int kStripsOfWarp = kStrips / num_copy_warps(kProduct);
  const std::byte* strips[kStripsOfWarp];
  bool is_mine[kStripsOfWarp];
  bool is_shared;
  uint32_t stage_bytes;  // of all strips, from whichever block
  int warp;

  __device__ WeightCopy(
      const GatedMlp& mlp, const MoeTile& tile, int col_block, bool is_shared, int warp)
      : is_shared(is_shared), warp(warp) {
    constexpr int kStripsOfMatrix = kIsGateUp ? kStrips / 2 : kStrips;
    const int num_strips = static_cast<int>(num_tiles(kIsGateUp ? mlp.intermediate : mlp.hidden));
    const int64_t bytes_per_strip = strip_bytes(kIsGateUp ? mlp.hidden : mlp.intermediate);
    const int first_strip = col_block * kStripsOfMatrix;
    const int num_present = tile.num_rows == 0 ? 0 : min(kStripsOfMatrix, num_strips - first_strip);
    stage_bytes = num_present * (kStrips / kStripsOfMatrix) * Weights::kBytes;
    const int64_t offset = tile.slot * mlp.slot_bytes;
#pragma unroll
    for (int i = 0; i < kStripsOfWarp; ++i) {
      const int strip = warp * kStripsOfWarp + i;
      const std::byte* const matrix =
          !kIsGateUp ? mlp.down : (strip < kStripsOfMatrix ? mlp.gate : mlp.up);
      strips[i] = matrix + offset + (first_strip + strip % kStripsOfMatrix) * bytes_per_strip;
      is_mine[i] = strip % kStripsOfMatrix < num_present &&
                   (!is_shared || strip / (kStrips / kClusterSize) == block_in_cluster());
    }
  }
  __device__ void copy(const Ring& ring, uint32_t offset) const {
#pragma unroll
    for (int i = 0; i < kStripsOfWarp; ++i) {
      if (!is_mine[i]) continue;
      const uint32_t to = ring.weights() + (warp * kStripsOfWarp + i) * Weights::kBytes;
      if (is_shared) {
        bulk_copy_multicast(to, strips[i] + offset, Weights::kBytes, ring.full_barrier(),
                            (1 << kClusterSize) - 1, kEvictNormal);
      } else {
        bulk_copy(to, strips[i] + offset, Weights::kBytes, ring.full_barrier(), kEvictNormal);
      }
    }
  }
};

// Rows of x by the producer's other warps: 8 neighbours take the 128 bytes of a row.
constexpr int kGatherThreads = kWarpgroup - 32 * num_copy_warps(Product::kGateUpOfRows);
struct GatheredRows {
  static constexpr int kRowsApart = kGatherThreads / 8;
  static constexpr int kRowsPerThread = (kTileTokens + kRowsApart - 1) / kRowsApart;
  static_assert(kRowsApart % 8 == 4);    // see copy()
  const __nv_bfloat16* from;             // the thread's columns of row 0
  uint32_t row_offsets[kRowsPerThread];  // 16 bytes each
  int num_rows;                          // of this thread
  int first_col;
  uint32_t place;  // of its first row, from the start of the stage's tokens

  __device__ GatheredRows(const GatedMlp& mlp, const MoeTile& tile, int thread) {
    const int row = thread / 8;
    const int chunk = thread % 8;
    first_col = chunk * 8;
    from = mlp.x + first_col;
    place = row * kRowBytes + (chunk ^ (row % 8)) * 16;
    num_rows = (tile.num_rows - row + kRowsApart - 1) / kRowsApart;
#pragma unroll
    for (int i = 0; i < kRowsPerThread; ++i) {
      row_offsets[i] = 0;
      if (i < num_rows) {
        const int32_t token = mlp.assignment(tile.first + row + i * kRowsApart) / mlp.top_k;
        row_offsets[i] = static_cast<uint32_t>(token * (mlp.x_stride / 8));
      }
    }
  }
  __device__ void copy(const Ring& ring, int k_tile, int num_cols) const {
    const int col = k_tile * kTileCols;
    const bool is_valid = col + first_col < num_cols;
    const __nv_bfloat16* const source = is_valid ? from + col : from - first_col;
    // Twelve rows on, the place in the group of eight is four further: chunk j ^ (i % 8) has its
    // highest bit turned.
    const uint32_t even = ring.tokens() + place;
    const uint32_t odd = ring.tokens() + (place ^ 64);
#pragma unroll
    for (int i = 0; i < kRowsPerThread; ++i) {
      if (i < num_rows) {
        copy_async_16((i % 2 == 0 ? even : odd) + i * kRowsApart * kRowBytes,
                      source + int64_t{row_offsets[i]} * 8, is_valid);
      }
    }
  }
};

// One thread of a copying warp: weights, and token rows that lie in tiles.
template <Product kProduct>
__device__ void copy_tiles(const GatedMlp& mlp, const Schedule& schedule, Ring ring, int warp) {
  const int num_k_tiles =
      static_cast<int>(num_tiles(is_gate_up(kProduct) ? mlp.hidden : mlp.intermediate));
  for (int item_idx = first_item(); item_idx < schedule.num_items(); item_idx += item_stride()) {
    const auto [tile_idx, col_block] = schedule.place(item_idx);
    const MoeTile tile = schedule.tile(mlp, tile_idx);
    const bool is_shared =
        tile_idx < schedule.num_tiles && schedule.tile(mlp, tile_idx ^ 1).expert == tile.expert;
    const WeightCopy<kProduct> weights(mlp, tile, col_block, is_shared, warp);
    const uint32_t token_bytes =
        gathers(kProduct)
            ? 0
            : static_cast<uint32_t>(round_up(tile.num_rows, kConsumerTokens)) * kRowBytes;
    // By a warp that copies no weights, if there is one.
    const bool has_tokens =
        token_bytes > 0 &&
        warp == (is_shared ? kStrips / 2 * (1 - static_cast<int>(block_in_cluster())) : 0);
    const auto* tokens =
        reinterpret_cast<const std::byte*>(is_gate_up(kProduct) ? mlp.x_tiles : mlp.h) +
        int64_t{tile_idx} * num_k_tiles * kTokenBytes;
    for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
      barrier_wait(ring.empty_barrier(), ring.parity ^ 1);
      if (warp == 0) barrier_arrive_expect(ring.full_barrier(), weights.stage_bytes + token_bytes);
      weights.copy(ring, k_tile * Weights::kBytes);
      if (has_tokens) {
        bulk_copy(ring.tokens(), tokens, token_bytes, ring.full_barrier(), kEvictNormal);
      }
      tokens += kTokenBytes;
      ring.advance();
    }
  }
}

__device__ void gather_rows(const GatedMlp& mlp, const Schedule& schedule, Ring ring, int thread) {
  const int num_k_tiles = static_cast<int>(num_tiles(mlp.hidden));
  for (int item_idx = first_item(); item_idx < schedule.num_items(); item_idx += item_stride()) {
    const GatheredRows rows(mlp, schedule.tile(mlp, schedule.place(item_idx).tile_idx), thread);
    for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
      barrier_wait(ring.empty_barrier(), ring.parity ^ 1);
      rows.copy(ring, k_tile, mlp.hidden);
      barrier_arrive_after_copies(ring.full_barrier());
      ring.advance();
    }
  }
}

// --- The consumers

__device__ __forceinline__ float silu(float value) {
  return __fdividef(value, 1.0f + __expf(-value));
}

// The stage may be filled again, as far as the calling warp goes.
__device__ __forceinline__ void release(uint32_t empty_barrier) {
  const int lane = threadIdx.x % 32;
  if (lane < kClusterSize) barrier_arrive_remote(empty_barrier, lane);
}

// 64 token rows by 256 weight rows over all of K.
template <Product kProduct>
__device__ __forceinline__ void multiply(float (&sums)[128],
                                         Ring& ring,
                                         int consumer,
                                         int num_k_tiles) {
  uint32_t previous_empty = 0;
  for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
    barrier_wait(ring.full_barrier(), ring.parity);
    if constexpr (gathers(kProduct)) fence_async_shared();  // cp.async wrote the rows
    const uint64_t tokens = smem_descriptor(ring.tokens() + consumer * kConsumerTokens * kRowBytes);
    const uint64_t weights = Weights::operand(ring.weights());
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kTileCols / 16; ++step) {
      Wgmma<kTileWeights>::smem_smem(sums, tokens + step * (32 >> 4),
                                     weights + step * (Weights::kStepBytes >> 4),
                                     k_tile > 0 || step > 0);
    }
    wgmma_commit();
    if (k_tile > 0) {
      wgmma_wait<1>();
      release(previous_empty);
    }
    previous_empty = ring.empty_barrier();
    ring.advance();
  }
  wgmma_wait<0>();
  release(previous_empty);
}

// Turns 16 rows by 128 columns of a warp, given as the fragments' words (two columns of row
// lane / 4, then of that + 8, for every 8 columns), into rows: store(row, chunk, value) gets 16
// bytes from column 8 * chunk on.
template <typename Word, typename Store>
__device__ __forceinline__ void store_rows(uint32_t result, const Word& word, const Store& store) {
  const int lane = threadIdx.x % 32;
  __syncwarp();  // the rows before have been read
#pragma unroll
  for (int c = 0; c < kResultCols / 8; c += 2) {
    store_matrix_x4(result + lane % 16 * kPaddedRowBytes + (c + lane / 16) * 16, word(c, 0),
                    word(c, 1), word(c + 1, 0), word(c + 1, 1));
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kWarpRows / 2; ++i) {
    const int row = 2 * i + lane / 16;
    store(row, lane % 16, load_shared(result + row * kPaddedRowBytes + lane % 16 * 16));
  }
}

// h of 64 rows by 128 columns, as two tiles of the layout that the down product copies.
__device__ __forceinline__ void write_h(const float (&sums)[128],
                                        const GatedMlp& mlp,
                                        int tile_idx,
                                        int num_rows,
                                        int col_block,
                                        int first_row,
                                        uint32_t result) {
  const int num_k_tiles = static_cast<int>(num_tiles(mlp.intermediate));
  const int first_k_tile = col_block * (kResultCols / kTileCols);
  std::byte* const to = reinterpret_cast<std::byte*>(mlp.h) +
                        (int64_t{tile_idx} * num_k_tiles + first_k_tile) * kTokenBytes;
  const auto word = [&](int c, int half) {
    const int at = 4 * c + 2 * half;
    return pack_bf16(silu(sums[at]) * sums[64 + at], silu(sums[at + 1]) * sums[64 + at + 1]);
  };
  store_rows(result, word, [&](int warp_row, int chunk, const uint4& value) {
    const int row = first_row + warp_row;
    if (row >= num_rows || first_k_tile + chunk / 8 >= num_k_tiles) return;
    const int place = chunk / 8 * kTokenBytes + row * kRowBytes + (chunk % 8 ^ row % 8) * 16;
    *reinterpret_cast<uint4*>(to + place) = value;
  });
}

// y of 64 rows by 256 columns. Lane r < 16 holds the assignment of the warp's row r.
__device__ __forceinline__ void write_y(const float (&sums)[128],
                                        const GatedMlp& mlp,
                                        int num_rows,
                                        int col_block,
                                        int first_row,
                                        int assignment,
                                        uint32_t result) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t first_col = int64_t{col_block} * kTileWeights + half * kResultCols;
    const auto word = [&](int c, int word_half) {
      const int at = half * 64 + 4 * c + 2 * word_half;
      return pack_bf16(sums[at], sums[at + 1]);
    };
    store_rows(result, word, [&](int warp_row, int chunk, const uint4& value) {
      const int row_assignment = __shfl_sync(0xFFFFFFFFu, assignment, warp_row);
      const int64_t col = first_col + chunk * 8;
      if (first_row + warp_row >= num_rows || col >= mlp.y_cols) return;
      *reinterpret_cast<uint4*>(mlp.y + row_assignment * mlp.y_stride + col) = value;
    });
  }
}

template <Product kProduct>
__device__ void consume(
    const GatedMlp& mlp, const Schedule& schedule, Ring ring, int consumer, uint32_t result) {
  const int num_k_tiles =
      static_cast<int>(num_tiles(is_gate_up(kProduct) ? mlp.hidden : mlp.intermediate));
  const int first_row = consumer * kConsumerTokens + threadIdx.x % kWarpgroup / 32 * kWarpRows;
  Schedule::Place next = schedule.place(first_item());
  MoeTile next_tile = schedule.tile(mlp, next.tile_idx);
  for (int item_idx = first_item(); item_idx < schedule.num_items(); item_idx += item_stride()) {
    const auto [tile_idx, col_block] = next;
    const MoeTile tile = next_tile;
    // Read now, used only after the product.
    next = schedule.place(item_idx + item_stride());
    next_tile = schedule.tile(mlp, next.tile_idx);
    if (tile.num_rows <= consumer * kConsumerTokens) {
      for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
        barrier_wait(ring.full_barrier(), ring.parity);
        release(ring.empty_barrier());
        ring.advance();
      }
      continue;
    }
    float sums[128];
    if constexpr (is_gate_up(kProduct)) {
      multiply<kProduct>(sums, ring, consumer, num_k_tiles);
      write_h(sums, mlp, tile_idx, tile.num_rows, col_block, first_row, result);
    } else {
      const int row = first_row + threadIdx.x % kWarpRows;
      const int assignment = row < tile.num_rows ? mlp.assignment(tile.first + row) : 0;
      multiply<kProduct>(sums, ring, consumer, num_k_tiles);
      write_y(sums, mlp, tile.num_rows, col_block, first_row, assignment, result);
    }
  }
}

// h = silu(gate x) * (up x) with is_gate_up(kProduct), y = down h otherwise, of every row of the
// plan.
template <Product kProduct>
__global__ void __launch_bounds__(kThreads, 1) sm90_moe_prefill_kernel(const GatedMlp mlp) {
  extern __shared__ __align__(1024) std::byte smem[];
  Ring ring;
  ring.base = smem_address(smem);
  const uint32_t results = ring.base + kStages * kStageBytes;
  ring.full = results + kConsumerWarps * kResultBytes;
  ring.empty = ring.full + kStages * 8;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      // The thread that names the bytes to come, and those that gather.
      barrier_init(ring.full + stage * 8, gathers(kProduct) ? 1 + kGatherThreads : 1);
      barrier_init(ring.empty + stage * 8, kClusterSize * kConsumers * (kWarpgroup / 32));
    }
    barrier_init_fence();
  }
  cluster_sync();
  wait_for_previous_kernels();
  let_next_kernel_start();

  const int outputs = is_gate_up(kProduct) ? mlp.intermediate : mlp.hidden;
  const int outputs_per_block = is_gate_up(kProduct) ? kTileWeights / 2 : kTileWeights;
  const Schedule schedule = {static_cast<int>(mlp.num_tiles()),
                             (outputs + outputs_per_block - 1) / outputs_per_block};
  const int warp = threadIdx.x / 32;
  if (warp < kWarpgroup / 32) {
    give_up_registers<64>();
    if (warp < num_copy_warps(kProduct)) {
      if (!gathers(kProduct)) fence_async_global();
      if (threadIdx.x % 32 == 0) copy_tiles<kProduct>(mlp, schedule, ring, warp);
    } else if constexpr (gathers(kProduct)) {
      gather_rows(mlp, schedule, ring, threadIdx.x - (kWarpgroup - kGatherThreads));
    }
  } else {
    take_registers<216>();
    const int consumer_warp = warp - kWarpgroup / 32;
    consume<kProduct>(mlp, schedule, ring, consumer_warp / 4,
                      results + consumer_warp * kResultBytes);
  }
  __syncwarp();
  cluster_sync();  // until then the other block may copy here or arrive here
}

// Rows of x as tiles of the layout that products copy: [tile][64 columns][128 rows]. One block
// takes 256 columns of a tile, a warp 512 neighbouring bytes of a row.
constexpr int kLayThreads = 256;
__global__ void __launch_bounds__(kLayThreads) gather_tiles_kernel(const GatedMlp mlp) {
  wait_for_previous_kernels();
  let_next_kernel_start();
  const int64_t tile_idx = blockIdx.y;
  if (tile_idx >= mlp.num_tiles()) return;
  const MoeTile tile = mlp.tile(tile_idx);
  const int num_k_tiles = static_cast<int>(num_tiles(mlp.hidden));
  const int chunk = blockIdx.x * 32 + threadIdx.x % 32;
  const int k_tile = chunk / 8;
  if (k_tile >= num_k_tiles) return;
  std::byte* const to =
      reinterpret_cast<std::byte*>(mlp.x_tiles) + (tile_idx * num_k_tiles + k_tile) * kTokenBytes;
  const bool is_valid = chunk * 8 < mlp.hidden;
#pragma unroll 4
  for (int row = threadIdx.x / 32; row < tile.num_rows; row += kLayThreads / 32) {
    const int32_t token = mlp.assignment(tile.first + row) / mlp.top_k;
    const auto* from = reinterpret_cast<const uint4*>(mlp.x + token * mlp.x_stride) + chunk;
    *reinterpret_cast<uint4*>(to + row * kRowBytes + (chunk % 8 ^ row % 8) * 16) =
        is_valid ? __ldg(from) : uint4{};
  }
}

void gather_tiles(const GatedMlp& mlp, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(num_tiles(mlp.hidden), 4)),
                  static_cast<unsigned>(mlp.num_tiles_bound));
  launch(gather_tiles_kernel, {.grid = grid, .block = dim3(kLayThreads)}, stream, mlp);
}

template <Product kProduct>
void launch_product(const GatedMlp& mlp, cudaStream_t stream) {
  const auto kernel = sm90_moe_prefill_kernel<kProduct>;
  allow_smem(kernel, kSmemBytes);
  const int num_blocks = device_traits().num_sms / kClusterSize * kClusterSize;
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(num_blocks)),
          .block = dim3(kThreads),
          .smem_bytes = kSmemBytes,
          .cluster_size = kClusterSize},
         stream, mlp);
}

// Bytes of `num_cols` columns of every row of tiles, in the layout that products copy.
int64_t tiles_bytes(int64_t num_tiles_bound, int64_t num_cols) {
  return num_tiles_bound * num_tiles(num_cols) * kTokenBytes;
}

// Whether rows of x are laid out in tiles first. Gathering them while multiplying takes time of
// shared memory from the products, which counts where these are the limit and not the weights (on
// H100 from about 192 rows an expert), and where a row is multiplied often enough to be worth
// writing and reading once more.
bool lays_out_x(int64_t num_assignments, int64_t num_experts, int64_t intermediate) {
  constexpr int64_t kRowsOfExpert = 192;
  constexpr int64_t kIntermediate = 1024;
  return num_assignments >= kRowsOfExpert * num_experts && intermediate >= kIntermediate;
}

// Checks what the launches need and places h, y and x_tiles in the workspace. y takes the place of
// x_tiles once gate and up are done.
GatedMlp with_workspace(GatedMlp mlp, std::byte* workspace) {
  AUGUR_REQUIRE(device_traits().is_hopper(), "another device");
  AUGUR_REQUIRE(mlp.plan.tile_rows == kTileTokens, std::to_string(mlp.plan.tile_rows));
  AUGUR_REQUIRE(
      mlp.hidden % 8 == 0 && mlp.x_stride % 8 == 0 && reinterpret_cast<uintptr_t>(mlp.x) % 16 == 0,
      std::to_string(mlp.hidden) + ", row stride " + std::to_string(mlp.x_stride));
  AUGUR_REQUIRE(mlp.num_tiles_bound < 65536, std::to_string(mlp.num_tiles_bound));
  mlp.h = reinterpret_cast<__nv_bfloat16*>(workspace);
  mlp.y = reinterpret_cast<__nv_bfloat16*>(workspace +
                                           tiles_bytes(mlp.num_tiles_bound, mlp.intermediate));
  if (lays_out_x(mlp.num_assignments, mlp.num_experts, mlp.intermediate)) mlp.x_tiles = mlp.y;
  return mlp;
}

void run_gate_up(const GatedMlp& mlp, cudaStream_t stream) {
  if (mlp.x_tiles == nullptr) {
    launch_product<Product::kGateUpOfRows>(mlp, stream);
  } else {
    gather_tiles(mlp, stream);
    launch_product<Product::kGateUpOfTiles>(mlp, stream);
  }
}

}  // namespace

std::string MoePrefillConfig::to_string() const {
  return "tiles of " + std::to_string(tile_rows) + " rows by " + std::to_string(tile_cols) +
         " weight rows, at most " + std::to_string(max_tiles) + " of the plan, " +
         std::to_string(num_gate_up_items) + " items of gate and up, " +
         std::to_string(num_down_items) + " of down, x " +
         (lays_out_x ? "laid out first" : "gathered") + ", workspace of " +
         std::to_string(workspace_bytes) + " bytes";
}

MoePrefillConfig moe_prefill_config(int64_t num_tokens,
                                    int top_k,
                                    int num_experts,
                                    int64_t hidden_size,
                                    int64_t intermediate_size) {
  AUGUR_REQUIRE(hidden_size % 8 == 0, std::to_string(hidden_size));
  MoePrefillConfig config;
  config.tile_rows = kTileTokens;
  config.tile_cols = kTileWeights;
  config.max_tiles = max_tiles(num_tokens * top_k, num_experts, kTileTokens);
  config.num_gate_up_items =
      config.max_tiles * ceil_div<int64_t>(intermediate_size, kTileWeights / 2);
  config.num_down_items = config.max_tiles * ceil_div<int64_t>(hidden_size, kTileWeights);
  config.lays_out_x = lays_out_x(num_tokens * top_k, num_experts, intermediate_size);
  const int64_t y_bytes = num_tokens * top_k * round_up(hidden_size, kTileCols) * 2;
  const int64_t x_bytes = config.lays_out_x ? tiles_bytes(config.max_tiles, hidden_size) : 0;
  config.workspace_bytes =
      tiles_bytes(config.max_tiles, intermediate_size) + std::max(x_bytes, y_bytes);
  return config;
}

int64_t sm90_moe_prefill_workspace_bytes(int64_t num_tokens,
                                         int top_k,
                                         int num_experts,
                                         int64_t hidden_size,
                                         int64_t intermediate_size) {
  return moe_prefill_config(num_tokens, top_k, num_experts, hidden_size, intermediate_size)
      .workspace_bytes;
}

void sm90_moe_gate_up(const MoePrefillArgs& args, cudaStream_t stream) {
  run_gate_up(with_workspace(gated_mlp(args), args.workspace), stream);
}

void sm90_moe_down(const MoePrefillArgs& args, cudaStream_t stream) {
  launch_product<Product::kDown>(with_workspace(gated_mlp(args), args.workspace), stream);
}

void sm90_moe_combine(const MoePrefillArgs& args, cudaStream_t stream) {
  const MoeArgs& moe = args.moe;
  const GatedMlp mlp = with_workspace(gated_mlp(args), args.workspace);
  moe_combine({.y = {mlp.y, DType::kBF16, mlp.num_assignments, mlp.hidden, mlp.y_stride},
               .experts = moe.experts,
               .weights = moe.weights,
               .top_k = moe.top_k,
               .shared = args.shared_out,
               .out = moe.out},
              stream);
}

void sm90_moe_prefill(const MoePrefillArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_moe_prefill");
  if (args.moe.x.num_rows == 0) return;
  sm90_moe_gate_up(args, stream);
  sm90_moe_down(args, stream);
  sm90_moe_combine(args, stream);
}

void sm90_mlp_prefill(const MlpPrefillArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_mlp_prefill");
  const int64_t num_tokens = args.mlp.x.num_rows;
  if (num_tokens == 0) return;
  GatedMlp mlp = with_workspace(gated_mlp(args, kTileTokens), args.workspace);
  const Tensor& out = args.mlp.out;
  const bool is_direct = out.dtype == DType::kBF16 && out.row_stride % 8 == 0 &&
                         reinterpret_cast<uintptr_t>(out.data) % 16 == 0;
  if (is_direct) {
    mlp.y = out.row<__nv_bfloat16>(0);
    mlp.y_stride = out.row_stride;
    mlp.y_cols = mlp.hidden;
  }
  run_gate_up(mlp, stream);
  launch_product<Product::kDown>(mlp, stream);
  if (is_direct) return;
  MoeCombineArgs combine;
  combine.y = {mlp.y, DType::kBF16, num_tokens, mlp.hidden, mlp.y_stride};
  combine.out = out;
  moe_combine(combine, stream);
}

}  // namespace augur::cuda
