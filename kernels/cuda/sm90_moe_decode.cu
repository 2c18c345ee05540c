#include "kernels/cuda/sm90_moe_decode.h"

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kConsumerWarps = 8;
constexpr int kConsumers = kConsumerWarps * 32;
constexpr int kThreads = kConsumers + 32;  // and the warp that copies
// Weights of one stage. Small enough that five or six stages fit into half of the shared memory:
// the next kernel's block then streams its first stages beside this kernel's last ones.
constexpr int kStageWeightBytes = 16 * 1024;
constexpr int kUnitBytes = kStageWeightBytes / 2;
constexpr int kMaxStages = 16;
constexpr int kMaxChoices = 32;  // of the one token of kOneToken: a lane each
constexpr int kRowPadding = 4;   // floats: keeps the partial sums free of bank conflicts

// Where the rows of a tile come from.
enum class Rows : uint8_t {
  kPlan,      // from the plan
  kOneToken,  // one token: tile i is its i-th choice, and down sums over them
  kAllTokens  // an MLP: tile i is the i-th tile_rows tokens
};

struct StreamArgs {
  const std::byte* matrices[2];  // gate and up, or down, in slot 0
  int64_t slot_bytes;
  int num_k_tiles;  // of one row of the matrices
  int num_groups;   // items of one tile: groups of group_rows rows
  int group_rows;
  int num_stages;
  const __nv_bfloat16* x;
  int64_t x_stride;
  void* out;
  int64_t out_stride;
  int64_t num_out_cols;  // what lies past them is zero in the matrices or not there
  bool is_out_bf16;
  bool is_out_aligned;  // four columns may be written at once
  Tensor shared;        // added to the one token's sum
  Rows rows;
  int64_t num_tokens;
  MoePlan plan;
  const int32_t* experts;
  const float* weights;
  const int32_t* slot_of_expert;
  int top_k;
  int32_t* next_item;     // zero when the kernel starts
  int32_t* others_items;  // of the kernel before and after, to be set to zero
};

// The weights as bf16: a row of a tile is 64 columns. A format says how many bytes that row has
// and how a warp makes the operands of two products from 16 rows by 32 of the columns.
struct Bf16Format {
  static constexpr int kRowBytes = 128;
  // Lane (g, t) takes 16-byte chunk 2t + half of rows g and g + 8: eight columns, which serve as
  // columns 2t, 2t + 1, 2t + 8 and 2t + 9 of two products. Columns may be taken in any order that
  // the other operand follows. Even and odd chunks of two rows lie in different banks.
  static __device__ __forceinline__ void load(
      uint32_t (&a)[2][4], const std::byte* rows, int g, int t, int half) {
    const std::byte* const from = rows + g * kRowBytes + (((2 * t + half) ^ g) * 16);
    const uint4 upper = *reinterpret_cast<const uint4*>(from);
    const uint4 lower = *reinterpret_cast<const uint4*>(from + 8 * kRowBytes);
    a[0][0] = upper.x, a[0][1] = lower.x, a[0][2] = upper.y, a[0][3] = lower.y;
    a[1][0] = upper.z, a[1][1] = lower.z, a[1][2] = upper.w, a[1][3] = lower.w;
  }
};

// What lies in shared memory, the same arithmetic for host and device.
template <int kMatrices, int kN>
struct Smem {
  static constexpr int kPassCols = kN < 16 ? kN : 16;  // tokens whose partial sums meet at a time

  int k_tiles;      // of a stage: of each matrix
  int x_pitch;      // bytes of a token's values in a stage, and 16 so that rows shift banks
  int stage_bytes;  // weights, then tokens
  int sums;         // offsets
  int stages_info;
  int barriers;
  int choices;
  int num_bytes;

  __host__ __device__ Smem(int group_rows, int num_stages) {
    k_tiles = kStageWeightBytes / (kMatrices * group_rows * Bf16Format::kRowBytes);
    x_pitch = k_tiles * 128 + 16;
    stage_bytes = (kStageWeightBytes + kN * x_pitch + 127) / 128 * 128;
    sums = num_stages * stage_bytes;
    const int num_k_parts = kConsumerWarps * 16 / group_rows;
    stages_info = sums + num_k_parts * (group_rows + kRowPadding) * kMatrices * kPassCols * 4;
    barriers = stages_info + num_stages * info_bytes();
    choices = barriers + num_stages * 16;
    num_bytes = choices + kMaxChoices * 8;
  }
  // num_k_tiles, flags, num_rows, group; then where each row goes, then its weight.
  static constexpr int info_bytes() { return 16 + kN * 8; }
};

constexpr int kIsLastOfItem = 1;
constexpr int kIsEnd = 2;

struct Item {
  int64_t slot;
  int first;
  int num_rows;
  int group;
};

// Bytes that copies will bring before the barrier's phase is complete; the arrival comes apart.
__device__ __forceinline__ void expect_bytes(uint32_t barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;\n" ::"r"(barrier),
               "r"(num_bytes)
               : "memory");
}

// The warp that copies. Every lane runs all of it; lanes share out the copies.
template <int kMatrices, int kN>
struct Producer {
  static constexpr int kRowsPerLane = (kN + 31) / 32;
  static constexpr bool kIsDown = kMatrices == 1;

  const StreamArgs& args;
  const Smem<kMatrices, kN>& layout;
  std::byte* smem;
  int lane;
  int stage = 0;
  uint32_t parity = 0;
  int num_choices = 0;  // of the one token
  int64_t num_items = 0;
  Item item;
  // Of the rows this lane copies.
  const __nv_bfloat16* x_rows[kRowsPerLane];
  int out_rows[kRowsPerLane];
  float scales[kRowsPerLane];

  __device__ uint32_t full(int s) const { return smem_address(smem + layout.barriers) + s * 16; }
  __device__ uint32_t empty(int s) const { return full(s) + 8; }
  __device__ int2* choices() const { return reinterpret_cast<int2*>(smem + layout.choices); }
  __device__ void advance() {
    if (++stage == args.num_stages) stage = 0, parity ^= 1;
  }

  // The experts of the one token: their slots and which choices they are, without those left out.
  __device__ void read_choices() {
    const int32_t expert = lane < args.top_k ? __ldcg(args.experts + lane) : -1;
    const unsigned chosen = __ballot_sync(~0u, expert >= 0);
    num_choices = __popc(chosen);
    if (expert >= 0) {
      choices()[__popc(chosen & ((1u << lane) - 1))] =
          make_int2(__ldcg(args.slot_of_expert + expert), lane);
    }
    __syncwarp();
  }

  __device__ int64_t count_items() {
    if (args.rows == Rows::kPlan) return int64_t{__ldcg(args.plan.num_tiles)} * args.num_groups;
    if (args.rows == Rows::kAllTokens) return (args.num_tokens + kN - 1) / kN * args.num_groups;
    read_choices();
    return int64_t{kIsDown ? 1 : num_choices} * args.num_groups;
  }

  // The tile and the rows of an item take a chain of reads, each as long as the copies of a stage:
  // every step of one item takes one link of the next one's chain.
  struct Lookahead {
    int32_t taken;
    int64_t item_idx;
    Item item;
    int32_t assignments[kRowsPerLane];
    float scales[kRowsPerLane];
  };
  static constexpr int kNumLinks = 4;

  __device__ void take_index(Lookahead& next) {
    if (lane == 0) next.taken = atomicAdd(args.next_item, 1);
  }
  __device__ void find_item(Lookahead& next) {
    Item& item = next.item;
    if (next.item_idx >= num_items) return;
    const int tile_idx = static_cast<int>(next.item_idx / args.num_groups);
    item.group = static_cast<int>(next.item_idx % args.num_groups);
    if (args.rows == Rows::kPlan) {
      const int4 tile = __ldcg(reinterpret_cast<const int4*>(args.plan.tiles + tile_idx));
      item.first = tile.y;
      item.num_rows = tile.z;
      item.slot = tile.w;
    } else if (args.rows == Rows::kOneToken) {
      item.first = tile_idx;
      item.num_rows = 1;
      item.slot = kIsDown ? 0 : choices()[tile_idx].x;
    } else {
      item.first = tile_idx * kN;
      item.num_rows = static_cast<int>(min(args.num_tokens - item.first, int64_t{kN}));
      item.slot = 0;
    }
  }
  __device__ void find_rows(Lookahead& next) {
    if (next.item_idx >= num_items || args.rows != Rows::kPlan) return;
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
      const int row = lane + 32 * i;
      if (row < next.item.num_rows) {
        next.assignments[i] = __ldcg(args.plan.sorted + next.item.first + row);
      }
    }
  }
  __device__ void find_scales(Lookahead& next) {
    if (next.item_idx >= num_items) return;
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
      const int row = lane + 32 * i;
      next.scales[i] = 1;
      if (kIsDown || row >= next.item.num_rows || args.rows == Rows::kAllTokens) continue;
      next.scales[i] =
          __ldcg(args.weights +
                 (args.rows == Rows::kPlan ? next.assignments[i] : choices()[next.item.first].y));
    }
  }
  __device__ void follow_link(Lookahead& next, int link) {
    if (link == 0) {
      take_index(next);
    } else if (link == 1) {
      next.item_idx = int64_t{gridDim.x} + __shfl_sync(~0u, next.taken, 0);
      find_item(next);
    } else if (link == 2) {
      find_rows(next);
    } else if (link == 3) {
      find_scales(next);
    }
  }

  // Makes the item that was looked up the one to copy.
  __device__ void begin_item(const Lookahead& next) {
    item = next.item;
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
      const int row = lane + 32 * i;
      int64_t x_row = 0;
      if (args.rows == Rows::kPlan) {
        out_rows[i] = next.assignments[i];
        x_row = kIsDown ? out_rows[i] : out_rows[i] / args.top_k;
      } else if (args.rows == Rows::kOneToken) {
        out_rows[i] = kIsDown ? 0 : item.first;
      } else {
        out_rows[i] = item.first + row;
        x_row = out_rows[i];
      }
      scales[i] = next.scales[i];
      x_rows[i] = args.x + x_row * args.x_stride;
    }
  }

  __device__ int num_k_tiles() const {
    return kIsDown && args.rows == Rows::kOneToken ? num_choices * args.num_k_tiles
                                                   : args.num_k_tiles;
  }
  __device__ int num_steps() const {
    return max((num_k_tiles() + layout.k_tiles - 1) / layout.k_tiles, 1);
  }
  __device__ int k_tiles_of(int step) const {
    return min(num_k_tiles() - step * layout.k_tiles, layout.k_tiles);
  }

  // Says what the stage will hold, and starts the copies of its weights.
  __device__ void copy_weights(int step, int s) {
    const int k_tiles = k_tiles_of(step);
    const int piece_bytes = args.group_rows * Bf16Format::kRowBytes;
    std::byte* const info = smem + layout.stages_info + s * layout.info_bytes();
    const bool is_last = step + 1 == num_steps();
    if (lane == 0) {
      *reinterpret_cast<int4*>(info) =
          make_int4(k_tiles, is_last ? kIsLastOfItem : 0, item.num_rows, item.group);
      expect_bytes(full(s), kMatrices * k_tiles * piece_bytes + item.num_rows * k_tiles * 128);
    }
    __syncwarp();
    const int num_pieces = kMatrices * layout.k_tiles;
    if (lane >= num_pieces) return;
    const int matrix = lane / layout.k_tiles;
    const int in_stage = lane % layout.k_tiles;
    if (in_stage >= k_tiles) return;
    int k_tile = step * layout.k_tiles + in_stage;
    int64_t slot = item.slot;
    if (kIsDown && args.rows == Rows::kOneToken) {
      slot = choices()[k_tile / args.num_k_tiles].x;
      k_tile %= args.num_k_tiles;
    }
    const int row = item.group * args.group_rows;
    const std::byte* const from = args.matrices[matrix] + slot * args.slot_bytes +
                                  (int64_t{row / kTileRows} * args.num_k_tiles + k_tile) *
                                      (kTileRows * Bf16Format::kRowBytes) +
                                  row % kTileRows * Bf16Format::kRowBytes;
    bulk_copy(smem_address(smem) + s * layout.stage_bytes + lane * piece_bytes, from, piece_bytes,
              full(s), kEvictFirst);
  }
  // Starts the copies of the tokens' values, and completes what the stage says of itself.
  __device__ void copy_tokens(int step, int s) {
    const int k_tiles = k_tiles_of(step);
    std::byte* const info = smem + layout.stages_info + s * layout.info_bytes();
    const bool is_last = step + 1 == num_steps();
    const uint32_t to = smem_address(smem) + s * layout.stage_bytes + kStageWeightBytes;
#pragma unroll
    for (int i = 0; i < kRowsPerLane; ++i) {
      const int row = lane + 32 * i;
      if (row >= item.num_rows) continue;
      if (is_last) {
        reinterpret_cast<int32_t*>(info + 16)[row] = out_rows[i];
        reinterpret_cast<float*>(info + 16 + kN * 4)[row] = scales[i];
      }
      if (k_tiles > 0) {
        bulk_copy(to + row * layout.x_pitch, x_rows[i] + int64_t{step} * layout.k_tiles * kTileCols,
                  k_tiles * 128, full(s), kEvictLast);
      }
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(full(s));
  }

  __device__ void run() {
    if (!kIsDown) {
      wait_for_previous_kernels();
      let_next_kernel_start();
      if (blockIdx.x == 0 && lane == 0) *args.others_items = 0;
    }
    num_items = count_items();
    Lookahead next = {};
    next.item_idx = blockIdx.x;
    find_item(next);
    // The first weights go ahead of the tokens' values, which the kernel before may still write.
    item = next.item;
    const int num_ahead = next.item_idx < num_items ? min(num_steps(), args.num_stages) : 0;
    for (int step = 0; step < num_ahead; ++step) copy_weights(step, step);
    if (kIsDown) {
      wait_for_previous_kernels();
      if (blockIdx.x == 0 && lane == 0) *args.others_items = 0;
    }
    find_rows(next);
    find_scales(next);
    for (bool is_first = true; next.item_idx < num_items; is_first = false) {
      begin_item(next);
      const int steps = num_steps();
      int link = 0;
      for (int step = 0; step < steps; ++step) {
        if (!is_first || step >= num_ahead) {
          barrier_wait(empty(stage), parity ^ 1);
          copy_weights(step, stage);
        }
        copy_tokens(step, stage);
        advance();
        follow_link(next, link++);
      }
      while (link < kNumLinks) follow_link(next, link++);
    }
    barrier_wait(empty(stage), parity ^ 1);
    if (lane == 0) {
      *reinterpret_cast<int4*>(smem + layout.stages_info + stage * layout.info_bytes()) =
          make_int4(0, kIsEnd, 0, 0);
      barrier_arrive(full(stage));
    }
  }
};

__device__ __forceinline__ float silu(float x) {
  return x / (1.0f + __expf(-x));
}

__device__ __forceinline__ float read_as_float(const Tensor& tensor, int64_t row, int64_t col) {
  const int64_t i = row * tensor.row_stride + col;
  return tensor.dtype == DType::kBF16
             ? __bfloat162float(static_cast<const __nv_bfloat16*>(tensor.data)[i])
             : static_cast<const float*>(tensor.data)[i];
}

__device__ __forceinline__ void write_four(
    void* out, bool is_bf16, bool is_aligned, int64_t at, int num_cols, const float (&values)[4]) {
  if (is_aligned && num_cols >= 4) {
    if (is_bf16) {
      *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(out) + at) =
          make_uint2(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]));
    } else {
      *reinterpret_cast<float4*>(static_cast<float*>(out) + at) =
          make_float4(values[0], values[1], values[2], values[3]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= num_cols) break;
    if (is_bf16) {
      static_cast<__nv_bfloat16*>(out)[at + i] = __float2bfloat16(values[i]);
    } else {
      static_cast<float*>(out)[at + i] = values[i];
    }
  }
}

// A warp that multiplies: of every stage it takes 16 rows by 32 columns twice, of gate and up or of
// two tiles of down. Warps of the same rows have different columns, and their sums meet at the end.
template <int kMatrices, int kN>
struct Consumer {
  static constexpr int kBlocks = kN / 8;
  static constexpr bool kIsDown = kMatrices == 1;
  using Layout = Smem<kMatrices, kN>;

  const StreamArgs& args;
  const Layout& layout;
  std::byte* smem;
  float sums[kMatrices][kBlocks][4] = {};

  __device__ void multiply(const std::byte* stage, int num_k_tiles, int num_blocks) {
    const int warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4;
    const int t = threadIdx.x % 4;
    const int num_row_groups = args.group_rows / 16;
    const int part = warp / num_row_groups;
    const int half = part % 2;
    const std::byte* const rows = stage + part / 2 * args.group_rows * Bf16Format::kRowBytes +
                                  warp % num_row_groups * 16 * Bf16Format::kRowBytes;
    const std::byte* const tokens =
        stage + kStageWeightBytes + g * layout.x_pitch + (2 * t + half) * 16;
#pragma unroll
    for (int unit = 0; unit < (kIsDown ? 2 : 1); ++unit) {
      const int k_tile = part / 2 + unit * (layout.k_tiles / 2);
      if (k_tile >= num_k_tiles) break;
      uint32_t a[kMatrices][2][4];
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        Bf16Format::load(a[m], rows + (kIsDown ? unit : m) * kUnitBytes, g, t, half);
      }
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
        if (block >= num_blocks) break;
        const uint4 b =
            *reinterpret_cast<const uint4*>(tokens + block * 8 * layout.x_pitch + k_tile * 128);
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
          mma_16x8x16(sums[m][block], a[m][0], b.x, b.y);
          mma_16x8x16(sums[m][block], a[m][1], b.z, b.w);
        }
      }
    }
  }

  // Adds up the warps' sums in the order of their columns and writes the item's result.
  __device__ void finish_item(int num_rows, int group, const std::byte* info) {
    constexpr int kPassCols = Layout::kPassCols;
    const int warp = threadIdx.x / 32;
    const int g = threadIdx.x % 32 / 4;
    const int t = threadIdx.x % 4;
    const int group_rows = args.group_rows;
    const int num_row_groups = group_rows / 16;
    const int pitch = group_rows + kRowPadding;
    const int num_parts = kConsumerWarps / num_row_groups;
    auto* const partial = reinterpret_cast<float*>(smem + layout.sums);
    // partial[part][matrix][token][row]
#pragma unroll
    for (int pass = 0; pass < kN / kPassCols; ++pass) {
      if (pass * kPassCols >= num_rows) break;
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
        for (int block = 0; block < kPassCols / 8; ++block) {
          const float(&d)[4] = sums[m][pass * kPassCols / 8 + block];
          float* const to =
              partial +
              ((warp / num_row_groups * kMatrices + m) * kPassCols + block * 8 + 2 * t) * pitch +
              warp % num_row_groups * 16 + g;
          to[0] = d[0];
          to[pitch] = d[1];
          to[8] = d[2];
          to[pitch + 8] = d[3];
        }
      }
      named_barrier(1, kConsumers);
      const int quads = group_rows / 4;
      for (int i = static_cast<int>(threadIdx.x); i < kPassCols * quads; i += kConsumers) {
        const int token = i / quads;
        const int row = i % quads * 4;
        if (pass * kPassCols + token >= num_rows) break;
        float totals[kMatrices][4] = {};
        for (int part = 0; part < num_parts; ++part) {
#pragma unroll
          for (int m = 0; m < kMatrices; ++m) {
            const float4 value = *reinterpret_cast<const float4*>(
                partial + ((part * kMatrices + m) * kPassCols + token) * pitch + row);
            totals[m][0] += value.x;
            totals[m][1] += value.y;
            totals[m][2] += value.z;
            totals[m][3] += value.w;
          }
        }
        const int64_t out_row =
            reinterpret_cast<const int32_t*>(info + 16)[pass * kPassCols + token];
        const float scale =
            reinterpret_cast<const float*>(info + 16 + kN * 4)[pass * kPassCols + token];
        write_result(totals, out_row, int64_t{group} * group_rows + row, scale);
      }
      named_barrier(1, kConsumers);
    }
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][block][i] = 0;
      }
    }
  }

  __device__ void write_result(const float (&totals)[kMatrices][4],
                               int64_t out_row,
                               int64_t col,
                               float scale) {
    float values[4];
    const auto num_cols = static_cast<int>(min(args.num_out_cols - col, int64_t{4}));
    if constexpr (kIsDown) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[i] = totals[0][i];
        if (args.shared.data != nullptr && i < num_cols) {
          values[i] += read_as_float(args.shared, out_row, col + i);
        }
      }
      write_four(args.out, args.is_out_bf16, args.is_out_aligned, out_row * args.out_stride + col,
                 num_cols, values);
    } else {
      // h is as wide as whole tiles, and zero where the matrices end earlier.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[i] = i < num_cols ? scale * silu(totals[0][i]) * totals[kMatrices - 1][i] : 0.0f;
      }
      write_four(args.out, true, true, out_row * args.out_stride + col, 4, values);
    }
  }

  __device__ void run() {
    wait_for_previous_kernels();
    const uint32_t barriers = smem_address(smem + layout.barriers);
    int stage = 0;
    uint32_t parity = 0;
    while (true) {
      barrier_wait(barriers + stage * 16, parity);
      const std::byte* const info = smem + layout.stages_info + stage * layout.info_bytes();
      const int4 what = *reinterpret_cast<const int4*>(info);
      if (what.y == kIsEnd) return;
      multiply(smem + stage * layout.stage_bytes, what.x, (what.z + 7) / 8);
      if (what.y == kIsLastOfItem) finish_item(what.z, what.w, info);
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(barriers + stage * 16 + 8);
      if (++stage == args.num_stages) stage = 0, parity ^= 1;
    }
  }
};

template <int kMatrices, int kN>
__global__ void __launch_bounds__(kThreads, kN <= 16 ? 2 : 1)
    moe_stream_kernel(const __grid_constant__ StreamArgs args) {
  extern __shared__ __align__(128) std::byte smem[];
  const Smem<kMatrices, kN> layout(args.group_rows, args.num_stages);
  if (threadIdx.x == 0) {
    for (int s = 0; s < args.num_stages; ++s) {
      const uint32_t barrier = smem_address(smem + layout.barriers) + s * 16;
      barrier_init(barrier, 1);
      barrier_init(barrier + 8, kConsumerWarps);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (kMatrices == 1) let_next_kernel_start();
  if (threadIdx.x >= kConsumers) {
    Producer<kMatrices, kN> producer{args, layout, smem, static_cast<int>(threadIdx.x % 32)};
    producer.run();
  } else {
    Consumer<kMatrices, kN> consumer{args, layout, smem};
    consumer.run();
  }
}

// A thread makes four columns of a token.
constexpr int kSumThreads = 128;
constexpr int kSumCols = 4;

__global__ void moe_sum_kernel(const float* y,
                               int64_t y_stride,
                               const int32_t* experts,
                               int top_k,
                               Tensor shared,
                               Tensor out,
                               bool is_out_aligned) {
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t token = blockIdx.y;
  const int64_t col = (int64_t{blockIdx.x} * kSumThreads + threadIdx.x) * kSumCols;
  if (col >= out.num_cols) return;
  float values[kSumCols] = {};
#pragma unroll 8
  for (int choice = 0; choice < top_k; ++choice) {
    const int64_t assignment = token * top_k + choice;
    if (experts[assignment] < 0) continue;
    const float4 part = *reinterpret_cast<const float4*>(y + assignment * y_stride + col);
    values[0] += part.x;
    values[1] += part.y;
    values[2] += part.z;
    values[3] += part.w;
  }
  const auto num_cols = static_cast<int>(min(out.num_cols - col, int64_t{kSumCols}));
  if (shared.data != nullptr) {
    for (int i = 0; i < num_cols; ++i) values[i] += read_as_float(shared, token, col + i);
  }
  write_four(out.data, out.dtype == DType::kBF16, is_out_aligned, token * out.row_stride + col,
             num_cols, values);
}

// Copies rows that bulk copies cannot take as they are into rows of whole tiles.
__global__ void pad_rows_kernel(Tensor x, __nv_bfloat16* to, int64_t to_stride) {
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t row = blockIdx.x;
  for (int64_t col = threadIdx.x; col < to_stride; col += blockDim.x) {
    to[row * to_stride + col] =
        col < x.num_cols ? static_cast<const __nv_bfloat16*>(x.data)[row * x.row_stride + col]
                         : __float2bfloat16(0.0f);
  }
}

constexpr int64_t kAlignment = 256;
constexpr int kCounterStride = kMoeDecodeCounters / 2;  // in another sector of L2

int64_t aligned(int64_t num_bytes) {
  return ceil_div(num_bytes, kAlignment) * kAlignment;
}
int64_t padded(int64_t num_cols) {
  return num_tiles(num_cols) * kTileCols;
}
bool is_aligned(const Tensor& tensor, int64_t num_elements) {
  const int64_t num_bytes = num_elements * dtype_bytes(tensor.dtype);
  return reinterpret_cast<uintptr_t>(tensor.data) % num_bytes == 0 &&
         tensor.row_stride % num_elements == 0;
}

// The workspace: h, y and x in whole tiles.
struct Workspace {
  __nv_bfloat16* h;
  float* y;
  __nv_bfloat16* x;
  int64_t num_bytes;

  Workspace(
      std::byte* memory, int64_t num_tokens, int top_k, int64_t hidden, int64_t intermediate) {
    const int64_t h_bytes = aligned(num_tokens * top_k * padded(intermediate) * 2);
    const int64_t y_bytes = aligned(num_tokens * top_k * padded(hidden) * 4);
    h = reinterpret_cast<__nv_bfloat16*>(memory);
    y = reinterpret_cast<float*>(memory + h_bytes);
    x = reinterpret_cast<__nv_bfloat16*>(memory + h_bytes + y_bytes);
    num_bytes = h_bytes + y_bytes + aligned(num_tokens * padded(hidden) * 2);
  }
};

// Half of a multiprocessor's shared memory, less what a block reserves; all of it for the widest
// tiles, whose blocks are alone.
constexpr int64_t kHalfSmemBytes = (228 * 1024) / 2 - 1024;
constexpr int64_t kFullSmemBytes = 227 * 1024;

template <int kMatrices, int kN>
void stream_weights(StreamArgs args, cudaStream_t stream) {
  const int64_t budget = kN <= 16 ? kHalfSmemBytes : kFullSmemBytes;
  args.num_stages = kMaxStages;
  while (args.num_stages > 2 &&
         Smem<kMatrices, kN>(args.group_rows, args.num_stages).num_bytes > budget) {
    --args.num_stages;
  }
  const int64_t num_bytes = Smem<kMatrices, kN>(args.group_rows, args.num_stages).num_bytes;
  auto* const kernel = moe_stream_kernel<kMatrices, kN>;
  static const bool is_allowed = (allow_smem(kernel, kFullSmemBytes), true);
  (void)is_allowed;
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(device_traits().num_sms)),
          .block = dim3(kThreads),
          .smem_bytes = num_bytes},
         stream, args);
}

template <int kMatrices>
void stream_weights(int tile_rows, const StreamArgs& args, cudaStream_t stream) {
  switch (tile_rows) {
    case 8:
      return stream_weights<kMatrices, 8>(args, stream);
    case 16:
      return stream_weights<kMatrices, 16>(args, stream);
    case 32:
      return stream_weights<kMatrices, 32>(args, stream);
    case 64:
      return stream_weights<kMatrices, 64>(args, stream);
    default:
      AUGUR_REQUIRE(false, "tile_rows is " + std::to_string(tile_rows));
  }
}

void require_rows(int rows) {
  AUGUR_REQUIRE(rows == 16 || rows == 32 || rows == 64, "rows of an item: " + std::to_string(rows));
}

// x as the kernels can copy it: itself, or a copy in the workspace.
StreamArgs with_tokens(StreamArgs args, const Tensor& x, __nv_bfloat16* copy, cudaStream_t stream) {
  AUGUR_REQUIRE(x.dtype == DType::kBF16, "x is not bf16");
  if (x.num_cols % kTileCols == 0 && is_aligned(x, 8)) {
    args.x = static_cast<const __nv_bfloat16*>(x.data);
    args.x_stride = x.row_stride;
    return args;
  }
  args.x = copy;
  args.x_stride = padded(x.num_cols);
  launch(pad_rows_kernel,
         {.grid = dim3(static_cast<unsigned>(x.num_rows)), .block = dim3(kSumThreads)}, stream, x,
         copy, args.x_stride);
  return args;
}

// Both kernels. `common` has what they share: rows, the plan, the choices, slot_bytes.
void run_mlps(StreamArgs common,
              const MlpWeights& weights,
              const Tensor& x,
              const Tensor& out,
              const MoeDecodeConfig& config,
              const Workspace& workspace,
              int32_t* counters,
              cudaStream_t stream) {
  require_rows(config.gate_up_rows);
  require_rows(config.down_rows);
  const int64_t hidden = weights.gate.num_cols;
  const int64_t intermediate = weights.gate.num_rows;
  StreamArgs args = with_tokens(common, x, workspace.x, stream);
  args.matrices[0] = weights.gate.data;
  args.matrices[1] = weights.up.data;
  args.num_k_tiles = static_cast<int>(num_tiles(hidden));
  args.group_rows = config.gate_up_rows;
  args.num_groups = static_cast<int>(padded(intermediate) / config.gate_up_rows);
  args.out = workspace.h;
  args.out_stride = padded(intermediate);
  args.num_out_cols = intermediate;
  args.shared = {};
  args.next_item = counters;
  args.others_items = counters + kCounterStride;
  stream_weights<2>(config.tile_rows, args, stream);

  args = common;
  args.matrices[0] = weights.down.data;
  args.matrices[1] = nullptr;
  args.num_k_tiles = static_cast<int>(num_tiles(intermediate));
  args.group_rows = config.down_rows;
  args.num_groups = static_cast<int>(padded(hidden) / config.down_rows);
  args.x = workspace.h;
  args.x_stride = padded(intermediate);
  args.num_out_cols = hidden;
  args.out = out.data;
  args.out_stride = out.row_stride;
  args.is_out_bf16 = out.dtype == DType::kBF16;
  args.is_out_aligned = is_aligned(out, 4);
  args.next_item = counters + kCounterStride;
  args.others_items = counters;
  stream_weights<1>(config.tile_rows, args, stream);
}

}  // namespace

std::string MoeDecodeConfig::to_string() const {
  return "tiles of " + std::to_string(tile_rows) + " tokens, items of " +
         std::to_string(gate_up_rows) + " rows of gate and up and " + std::to_string(down_rows) +
         " of down, " + (needs_plan ? "planned" : "without a plan");
}

namespace {

// num_mlps: different ones that the tokens can need. is_summed: down makes the tokens' sums itself.
MoeDecodeConfig decode_config(int64_t num_tokens,
                              int64_t num_mlps,
                              bool is_summed,
                              int64_t hidden_size,
                              int64_t intermediate_size) {
  // Enough items that the last ones to be taken are a small part: eight for each multiprocessor of
  // the largest Hopper. Fewer rows make more of them, though each reads smaller pieces, and the
  // tokens' values more often: only while tiles are narrow.
  constexpr int64_t kWantedItems = 8 * 132;
  MoeDecodeConfig config;
  config.tile_rows = num_tokens <= 8 ? 8 : num_tokens <= 16 ? 16 : num_tokens <= 32 ? 32 : 64;
  const int min_rows = config.tile_rows == 8 ? 16 : config.tile_rows == 16 ? 32 : 64;
  const auto rows_for = [&](int64_t num_strips) {
    int rows = kTileRows;
    while (rows > min_rows && num_strips * (kTileRows / rows) < kWantedItems) rows /= 2;
    return rows;
  };
  config.gate_up_rows = rows_for(num_mlps * num_tiles(intermediate_size));
  config.down_rows = rows_for((is_summed ? 1 : num_mlps) * num_tiles(hidden_size));
  return config;
}

}  // namespace

MoeDecodeConfig moe_decode_config(int64_t num_tokens,
                                  int top_k,
                                  int num_experts,
                                  int64_t hidden_size,
                                  int64_t intermediate_size) {
  const bool is_one_token = num_tokens == 1 && top_k <= kMaxChoices;
  MoeDecodeConfig config =
      decode_config(num_tokens, std::min<int64_t>(num_tokens * top_k, num_experts), is_one_token,
                    hidden_size, intermediate_size);
  config.needs_plan = !is_one_token;
  return config;
}

MoeDecodeConfig mlp_decode_config(int64_t num_tokens,
                                  int64_t hidden_size,
                                  int64_t intermediate_size) {
  return decode_config(num_tokens, 1, true, hidden_size, intermediate_size);
}

int64_t moe_decode_workspace_bytes(int64_t num_tokens,
                                   int top_k,
                                   int64_t hidden_size,
                                   int64_t intermediate_size) {
  return Workspace(nullptr, num_tokens, top_k, hidden_size, intermediate_size).num_bytes;
}

void sm90_moe_decode(const MoeDecodeArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_moe_decode");
  const MoeArgs& moe = args.moe;
  const ExpertLayout& layout = moe.table.layout;
  const int64_t num_tokens = moe.x.num_rows;
  AUGUR_REQUIRE(moe.x.num_cols == layout.hidden_size && moe.out.num_cols == layout.hidden_size,
                "x has " + std::to_string(moe.x.num_cols) + " columns, the experts " +
                    std::to_string(layout.hidden_size));
  if (num_tokens == 0) return;
  const bool is_one_token = !args.config.needs_plan;
  AUGUR_REQUIRE(is_one_token ? num_tokens == 1 && moe.top_k <= kMaxChoices
                             : args.plan.tile_rows == args.config.tile_rows,
                args.config.to_string());
  const Workspace workspace(args.workspace, num_tokens, moe.top_k, layout.hidden_size,
                            layout.intermediate_size);
  StreamArgs common = {};
  common.slot_bytes = layout.block_bytes;
  common.rows = is_one_token ? Rows::kOneToken : Rows::kPlan;
  common.num_tokens = num_tokens;
  common.plan = args.plan;
  common.experts = moe.experts;
  common.weights = moe.weights;
  common.slot_of_expert = moe.table.slot_of_expert;
  common.top_k = moe.top_k;
  if (is_one_token) common.shared = args.shared_out;
  const int64_t y_stride = padded(layout.hidden_size);
  const Tensor y = {workspace.y, DType::kF32, num_tokens * moe.top_k, layout.hidden_size, y_stride};
  run_mlps(common, layout.view(moe.table.slots), moe.x, is_one_token ? moe.out : y, args.config,
           workspace, args.counters, stream);
  if (is_one_token) return;
  launch(moe_sum_kernel,
         {.grid = dim3(
              static_cast<unsigned>(ceil_div<int64_t>(layout.hidden_size, kSumThreads * kSumCols)),
              static_cast<unsigned>(num_tokens)),
          .block = dim3(kSumThreads)},
         stream, workspace.y, y_stride, moe.experts, moe.top_k, args.shared_out, moe.out,
         is_aligned(moe.out, kSumCols));
}

int64_t bytes_moved(const MoeDecodeArgs& args, int64_t num_distinct_experts) {
  const MoeArgs& moe = args.moe;
  const ExpertLayout& layout = moe.table.layout;
  const int64_t num_tokens = moe.x.num_rows;
  return num_distinct_experts * 3 * layout.hidden_size * layout.intermediate_size * 2 +
         num_tokens * layout.hidden_size * (2 + dtype_bytes(moe.out.dtype)) +
         num_tokens * moe.top_k * 8;
}

void sm90_mlp_decode(const MlpDecodeArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_mlp_decode");
  const MlpArgs& mlp = args.mlp;
  AUGUR_REQUIRE(
      mlp.x.num_cols == mlp.weights.gate.num_cols && mlp.out.num_cols == mlp.weights.down.num_rows,
      "x has " + std::to_string(mlp.x.num_cols) + " columns");
  if (mlp.x.num_rows == 0) return;
  const Workspace workspace(args.workspace, mlp.x.num_rows, 1, mlp.weights.gate.num_cols,
                            mlp.weights.gate.num_rows);
  StreamArgs common = {};
  common.rows = Rows::kAllTokens;
  common.num_tokens = mlp.x.num_rows;
  common.top_k = 1;
  run_mlps(common, mlp.weights, mlp.x, mlp.out, args.config, workspace, args.counters, stream);
}

int64_t bytes_moved(const MlpDecodeArgs& args) {
  const PackedMatrix& gate = args.mlp.weights.gate;
  return 3 * gate.num_rows * gate.num_cols * 2 +
         args.mlp.x.num_rows * gate.num_cols * (2 + dtype_bytes(args.mlp.out.dtype));
}

}  // namespace augur::cuda
