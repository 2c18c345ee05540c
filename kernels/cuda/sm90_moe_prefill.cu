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
// 64 columns of K each: weight tiles by bulk copies, rows of x by cp.async (gathered, so no box of
// memory holds them); two warpgroups multiply 64 token rows each. They share nothing but the
// stages, so that one multiplies while the other writes its result out.
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
// What a consumer warpgroup collects of its result: 64 rows by 128 columns, as two swizzled tiles
// of h, or as rows of y padded by 16 bytes so that eight of them lie in different banks.
constexpr int kResultCols = 128;
constexpr int kPaddedRowBytes = kResultCols * 2 + 16;
constexpr int kResultBytes = kConsumerTokens * kPaddedRowBytes;
constexpr int kSmemBytes = kStages * kStageBytes + kConsumers * kResultBytes + 2 * kStages * 8;

// Plan tiles whose column blocks are worked through before the next tiles': 2,048 rows of tokens
// stay in L2 while the weight rows pass by.
constexpr int kGroupTiles = 16;

// --- Clusters and bulk stores

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
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}\n" ::"r"(smem_barrier),
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
__device__ __forceinline__ void bulk_store(void* to, uint32_t smem, uint32_t num_bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n" ::"l"(to), "r"(smem),
               "r"(num_bytes)
               : "memory");
}
__device__ __forceinline__ void bulk_store_commit() {
  asm volatile("cp.async.bulk.commit_group;\n" ::: "memory");
}
/// Until the calling thread's stores have read shared memory.
__device__ __forceinline__ void bulk_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory");
}
/// Until they are done.
__device__ __forceinline__ void bulk_store_wait() {
  asm volatile("cp.async.bulk.wait_group 0;\n" ::: "memory");
}
constexpr uint64_t kEvictNormal = 0x1000000000000000;

// --- The order of work

// The token tile and the block of columns of a block's work item, and whether the other block of
// the cluster has a tile of the same expert.
struct Item {
  MoeTile tile;  // num_rows is 0 past the last tile
  int64_t tile_idx;
  int col_block;
  bool is_shared;
};

// Items of a cluster: pairs of tiles by column blocks, in groups of kGroupTiles tiles.
struct Schedule {
  int64_t num_tiles;
  int num_col_blocks;

  __device__ int64_t num_items() const {
    return (num_tiles + kClusterSize - 1) / kClusterSize * num_col_blocks;
  }
  __device__ Item item(const GatedMlp& mlp, int64_t item_idx) const {
    constexpr int kGroupPairs = kGroupTiles / kClusterSize;
    const int64_t num_pairs = (num_tiles + kClusterSize - 1) / kClusterSize;
    const int64_t group = item_idx / (kGroupPairs * num_col_blocks);
    const int in_group = static_cast<int>(item_idx - group * kGroupPairs * num_col_blocks);
    const int pairs = static_cast<int>(min(int64_t{kGroupPairs}, num_pairs - group * kGroupPairs));
    const int64_t pair = group * kGroupPairs + in_group % pairs;
    Item item;
    item.col_block = in_group / pairs;
    item.tile_idx = pair * kClusterSize + block_in_cluster();
    item.tile = {-1, 0, 0, 0};
    if (item.tile_idx < num_tiles) item.tile = mlp.tile(item.tile_idx);
    const int64_t other_idx = item.tile_idx ^ 1;
    item.is_shared = item.tile_idx < num_tiles && other_idx < num_tiles &&
                     mlp.tile(other_idx).expert == item.tile.expert;
    return item;
  }
};

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

// One thread copies the weight tiles of a stage: strips 0 and 1 are gate and 2 and 3 up, or all of
// down. Where they are shared this block brings half of them to both.
template <bool kIsGateUp>
struct WeightCopies {
  const std::byte* strips[kStrips];
  int num_present = 0;
  bool is_shared = false;

  __device__ WeightCopies(const GatedMlp& mlp, const Item& item, int64_t bytes_per_strip) {
    const int64_t num_strips = num_tiles(kIsGateUp ? mlp.intermediate : mlp.hidden);
    const int64_t offset = item.tile.slot * mlp.slot_bytes;
    is_shared = item.is_shared;
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      const int64_t strip = kIsGateUp ? item.col_block * (kStrips / 2) + i % (kStrips / 2)
                                      : item.col_block * kStrips + i;
      const std::byte* const matrix = kIsGateUp ? (i < kStrips / 2 ? mlp.gate : mlp.up) : mlp.down;
      const bool is_present = strip < num_strips && item.tile.num_rows > 0;
      strips[i] = is_present ? matrix + offset + strip * bytes_per_strip : nullptr;
      num_present += is_present ? 1 : 0;
    }
  }
  __device__ uint32_t num_bytes() const {
    return num_present * Weights::kBytes;
  }
  __device__ void copy(const Ring& ring, int64_t offset, uint32_t rank) const {
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      if (strips[i] == nullptr) continue;
      const uint32_t to = ring.weights() + i * Weights::kBytes;
      if (!is_shared) {
        bulk_copy(to, strips[i] + offset, Weights::kBytes, ring.full_barrier(), kEvictNormal);
      } else if (i / 2 == rank) {
        bulk_copy_multicast(to, strips[i] + offset, Weights::kBytes, ring.full_barrier(),
                            (1 << kClusterSize) - 1, kEvictNormal);
      }
    }
  }
};

// Rows of x by all threads of the producer: 8 neighbours take the 128 bytes of a row.
struct GatheredRows {
  static constexpr int kRowsApart = kWarpgroup / 8;
  static constexpr int kRowsPerThread = kTileTokens / kRowsApart;
  const __nv_bfloat16* from;             // the thread's columns of row 0
  uint32_t row_offsets[kRowsPerThread];  // 16 bytes each
  int num_rows;                          // of this thread
  int first_col;
  uint32_t place;  // from the start of the stage's tokens

  __device__ GatheredRows(const GatedMlp& mlp, const MoeTile& tile) {
    const int thread = threadIdx.x;
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
#pragma unroll
    for (int i = 0; i < kRowsPerThread; ++i) {
      if (i < num_rows) {
        copy_async_16(ring.tokens() + place + i * kRowsApart * kRowBytes,
                      source + int64_t{row_offsets[i]} * 8, is_valid);
      }
    }
  }
};

template <bool kIsGateUp>
__device__ void produce(const GatedMlp& mlp, const Schedule& schedule, Ring ring) {
  const int num_k_tiles = static_cast<int>(num_tiles(kIsGateUp ? mlp.hidden : mlp.intermediate));
  if (!kIsGateUp && threadIdx.x != 0) return;
  const uint32_t rank = block_in_cluster();
  for (int64_t item_idx = blockIdx.x / kClusterSize; item_idx < schedule.num_items();
       item_idx += gridDim.x / kClusterSize) {
    const Item item = schedule.item(mlp, item_idx);
    const WeightCopies<kIsGateUp> weights(mlp, item, int64_t{num_k_tiles} * Weights::kBytes);
    if constexpr (kIsGateUp) {
      const GatheredRows rows(mlp, item.tile);
      for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
        barrier_wait(ring.empty_barrier(), ring.parity ^ 1);
        if (threadIdx.x == 0) {
          barrier_arrive_expect(ring.full_barrier(), weights.num_bytes());
          weights.copy(ring, int64_t{k_tile} * Weights::kBytes, rank);
        }
        rows.copy(ring, k_tile, mlp.hidden);
        barrier_arrive_after_copies(ring.full_barrier());
        ring.advance();
      }
    } else {
      const uint32_t token_bytes = (item.tile.num_rows + kConsumerTokens - 1) / kConsumerTokens *
                                   kConsumerTokens * kRowBytes;
      const auto* tokens = reinterpret_cast<const std::byte*>(mlp.h) +
                           item.tile_idx * num_k_tiles * int64_t{kTokenBytes};
      for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
        barrier_wait(ring.empty_barrier(), ring.parity ^ 1);
        barrier_arrive_expect(ring.full_barrier(), weights.num_bytes() + token_bytes);
        weights.copy(ring, int64_t{k_tile} * Weights::kBytes, rank);
        if (token_bytes > 0) {
          bulk_copy(ring.tokens(), tokens, token_bytes, ring.full_barrier(), kEvictNormal);
        }
        tokens += kTokenBytes;
        ring.advance();
      }
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
template <bool kIsGateUp>
__device__ __forceinline__ void multiply(float (&sums)[128],
                                         Ring& ring,
                                         int consumer,
                                         int num_k_tiles) {
  uint32_t previous_empty = 0;
  for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
    barrier_wait(ring.full_barrier(), ring.parity);
    if constexpr (kIsGateUp) fence_async_shared();  // cp.async wrote the rows
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

// h of 64 rows by 128 columns, as two tiles of the layout that the down product copies.
__device__ __forceinline__ void write_h(const float (&sums)[128],
                                        const GatedMlp& mlp,
                                        const Item& item,
                                        int consumer,
                                        uint32_t result) {
  const int thread = threadIdx.x % kWarpgroup;
  const int lane = thread % 32;
  if (thread == 0) bulk_store_wait_read();
  named_barrier(1 + consumer, kWarpgroup);
  const int row = thread / 32 * 16 + lane % 16;
#pragma unroll
  for (int c = 0; c < 16; c += 2) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * c + 2 * i;
      words[i] = pack_bf16(silu(sums[at]) * sums[64 + at], silu(sums[at + 1]) * sums[64 + at + 1]);
    }
    const int chunk = (c % 8 + lane / 16) ^ (row % 8);
    store_matrix_x4(result + c / 8 * static_cast<int>(kTileBytes) + row * kRowBytes + chunk * 16,
                    words[0], words[1], words[2], words[3]);
  }
  fence_async_shared();
  named_barrier(1 + consumer, kWarpgroup);
  if (thread == 0) {
    const int64_t num_k_tiles = num_tiles(mlp.intermediate);
    const int64_t first_k_tile = item.col_block * int64_t{kResultCols / kTileCols};
    auto* const to = reinterpret_cast<std::byte*>(mlp.h) +
                     (item.tile_idx * num_k_tiles + first_k_tile) * kTokenBytes +
                     consumer * kTileBytes;
    for (int i = 0; i < kResultCols / kTileCols && first_k_tile + i < num_k_tiles; ++i) {
      bulk_store(to + i * kTokenBytes, result + i * static_cast<int>(kTileBytes), kTileBytes);
    }
    bulk_store_commit();
  }
}

// y of up to 64 rows by 256 columns, in two halves; thread r < 64 stores row r.
__device__ __forceinline__ void write_y(const float (&sums)[128],
                                        const GatedMlp& mlp,
                                        const Item& item,
                                        int consumer,
                                        uint32_t result) {
  const int thread = threadIdx.x % kWarpgroup;
  const int lane = thread % 32;
  const int row_in_tile = consumer * kConsumerTokens + thread;
  const bool has_row = thread < kConsumerTokens && row_in_tile < item.tile.num_rows;
  __nv_bfloat16* to = nullptr;
  if (has_row) to = mlp.y + mlp.assignment(item.tile.first + row_in_tile) * mlp.y_stride;
  const int row = thread / 32 * 16 + lane % 16;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    bulk_store_wait_read();
    named_barrier(1 + consumer, kWarpgroup);
#pragma unroll
    for (int c = 0; c < 16; c += 2) {
      uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = half * 64 + 4 * c + 2 * i;
        words[i] = pack_bf16(sums[at], sums[at + 1]);
      }
      store_matrix_x4(result + row * kPaddedRowBytes + (c + lane / 16) * 16, words[0], words[1],
                      words[2], words[3]);
    }
    fence_async_shared();
    named_barrier(1 + consumer, kWarpgroup);
    const int64_t col = int64_t{item.col_block} * kTileWeights + half * kResultCols;
    if (has_row && col < mlp.y_stride) {
      const int64_t num_cols = min(int64_t{kResultCols}, mlp.y_stride - col);
      bulk_store(to + col, result + thread * kPaddedRowBytes, static_cast<uint32_t>(num_cols * 2));
      bulk_store_commit();
    }
  }
}

template <bool kIsGateUp>
__device__ void consume(
    const GatedMlp& mlp, const Schedule& schedule, Ring ring, int consumer, uint32_t result) {
  const int num_k_tiles = static_cast<int>(num_tiles(kIsGateUp ? mlp.hidden : mlp.intermediate));
  for (int64_t item_idx = blockIdx.x / kClusterSize; item_idx < schedule.num_items();
       item_idx += gridDim.x / kClusterSize) {
    const Item item = schedule.item(mlp, item_idx);
    if (item.tile.num_rows <= consumer * kConsumerTokens) {
      for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
        barrier_wait(ring.full_barrier(), ring.parity);
        release(ring.empty_barrier());
        ring.advance();
      }
      continue;
    }
    float sums[128];
    multiply<kIsGateUp>(sums, ring, consumer, num_k_tiles);
    if constexpr (kIsGateUp) {
      write_h(sums, mlp, item, consumer, result);
    } else {
      write_y(sums, mlp, item, consumer, result);
    }
  }
  bulk_store_wait();
}

// h = silu(gate x) * (up x) with kIsGateUp, y = down h otherwise, of every row of the plan.
template <bool kIsGateUp>
__global__ void __launch_bounds__(kThreads, 1) sm90_moe_prefill_kernel(const GatedMlp mlp) {
  extern __shared__ __align__(1024) std::byte smem[];
  Ring ring;
  ring.base = smem_address(smem);
  const uint32_t results = ring.base + kStages * kStageBytes;
  ring.full = results + kConsumers * kResultBytes;
  ring.empty = ring.full + kStages * 8;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      // The thread that names the bytes to come, and with cp.async every thread of the producer.
      barrier_init(ring.full + stage * 8, kIsGateUp ? 1 + kWarpgroup : 1);
      barrier_init(ring.empty + stage * 8, kClusterSize * kConsumers * (kWarpgroup / 32));
    }
    barrier_init_fence();
  }
  cluster_sync();
  wait_for_previous_kernels();
  let_next_kernel_start();

  const int64_t outputs = kIsGateUp ? mlp.intermediate : mlp.hidden;
  const int64_t outputs_per_block = kIsGateUp ? kTileWeights / 2 : kTileWeights;
  const Schedule schedule = {
      mlp.num_tiles(), static_cast<int>((outputs + outputs_per_block - 1) / outputs_per_block)};
  const int warpgroup = threadIdx.x / kWarpgroup;
  if (warpgroup == 0) {
    give_up_registers<40>();
    produce<kIsGateUp>(mlp, schedule, ring);
  } else {
    take_registers<232>();
    const int consumer = warpgroup - 1;
    consume<kIsGateUp>(mlp, schedule, ring, consumer, results + consumer * kResultBytes);
  }
  __syncwarp();
  cluster_sync();  // until then the other block may copy here or arrive here
}

template <bool kIsGateUp>
void launch_product(const GatedMlp& mlp, cudaStream_t stream) {
  const auto kernel = sm90_moe_prefill_kernel<kIsGateUp>;
  allow_smem(kernel, kSmemBytes);
  const int num_blocks = device_traits().num_sms / kClusterSize * kClusterSize;
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(num_blocks)),
          .block = dim3(kThreads),
          .smem_bytes = kSmemBytes,
          .cluster_size = kClusterSize},
         stream, mlp);
}

int64_t h_bytes(int64_t num_tiles_bound, int64_t intermediate) {
  return num_tiles_bound * num_tiles(intermediate) * kTokenBytes;
}

// Checks what the launches need and places h and y in the workspace.
GatedMlp with_workspace(GatedMlp mlp, std::byte* workspace) {
  AUGUR_REQUIRE(device_traits().is_hopper(), "another device");
  AUGUR_REQUIRE(mlp.plan.tile_rows == kTileTokens, std::to_string(mlp.plan.tile_rows));
  AUGUR_REQUIRE(
      mlp.hidden % 8 == 0 && mlp.x_stride % 8 == 0 && reinterpret_cast<uintptr_t>(mlp.x) % 16 == 0,
      std::to_string(mlp.hidden) + ", row stride " + std::to_string(mlp.x_stride));
  mlp.h = reinterpret_cast<__nv_bfloat16*>(workspace);
  mlp.y =
      reinterpret_cast<__nv_bfloat16*>(workspace + h_bytes(mlp.num_tiles_bound, mlp.intermediate));
  return mlp;
}

}  // namespace

std::string MoePrefillConfig::to_string() const {
  return "tiles of " + std::to_string(tile_rows) + " rows by " + std::to_string(tile_cols) +
         " weight rows, at most " + std::to_string(max_tiles) + " of the plan, " +
         std::to_string(num_gate_up_items) + " items of gate and up, " +
         std::to_string(num_down_items) + " of down, workspace of " +
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
  config.workspace_bytes = h_bytes(config.max_tiles, intermediate_size) +
                           num_tokens * top_k * round_up(hidden_size, kTileCols) * 2;
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
  launch_product<true>(with_workspace(gated_mlp(args), args.workspace), stream);
}

void sm90_moe_down(const MoePrefillArgs& args, cudaStream_t stream) {
  launch_product<false>(with_workspace(gated_mlp(args), args.workspace), stream);
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
  const GatedMlp mlp = with_workspace(gated_mlp(args, kTileTokens), args.workspace);
  launch_product<true>(mlp, stream);
  launch_product<false>(mlp, stream);
  MoeCombineArgs combine;
  combine.y = {mlp.y, DType::kBF16, num_tokens, mlp.hidden, mlp.y_stride};
  combine.out = args.mlp.out;
  moe_combine(combine, stream);
}

}  // namespace augur::cuda
