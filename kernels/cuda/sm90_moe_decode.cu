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
constexpr int kWeightsWarp = kConsumerWarps;  // copies weights
// The warps after it copy the tokens' values: of wide tiles they are as many instructions as the
// products.
constexpr int num_tokens_warps(int tile_rows) {
  return tile_rows <= 16 ? 1 : tile_rows / 16;
}
constexpr int num_threads(int tile_rows) {
  return (kConsumerWarps + 1 + num_tokens_warps(tile_rows)) * 32;
}
// Weights of one stage. Small enough that four to six stages fit into half of the shared memory:
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

// What both kernels share beside the data, kept from call to call.
struct State {
  // Blocks take items by these; the last block of the second kernel sets them back to zero.
  int32_t* next_gate_up;
  int32_t* next_down;
  int32_t* num_blocks_done;  // of the second kernel
  // The number of calls so far. Item i of the first kernel is finished when finished[i] is one
  // more: the second kernel need not wait for all of them, and nothing needs to be cleared.
  uint32_t* num_calls;
  uint32_t* finished;
};

struct StreamArgs {
  const std::byte* matrices[2];  // gate and up, or down, in slot 0
  int64_t slot_bytes;
  int num_k_tiles;  // of one row of the matrices
  int num_groups;   // items of one tile: groups of rows
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
  int gate_up_rows;  // of an item of the first kernel
  State state;
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

// What a stage holds.
struct StageInfo {
  int num_k_tiles;  // of each matrix
  int flags;
  int num_rows;  // of the item's tile
  int group;
  int tile;
  int first;  // of the tile's rows
  uint32_t call;
  int padding;
};
constexpr int kIsFirstOfItem = 1;
constexpr int kIsLastOfItem = 2;
constexpr int kIsEnd = 4;

// What lies in shared memory: stages, partial sums, barriers and a few words. Items are kRows rows
// of kMatrices matrices by kN tokens.
template <int kMatrices, int kN, int kRows>
struct Smem {
  static constexpr int kPieceBytes = kRows * Bf16Format::kRowBytes;             // of a tile
  static constexpr int kTiles = kStageWeightBytes / (kMatrices * kPieceBytes);  // per matrix, stage
  static constexpr int kTokenPitch = kTiles * 128 + 16;  // bytes; 16 so that rows shift banks
  static constexpr int kStageBytes = (kStageWeightBytes + kN * kTokenPitch + 127) / 128 * 128;
  static constexpr int kParts = kConsumerWarps * 16 / kRows;  // warps of the same rows
  static constexpr int kPassCols = kN < 16 ? kN : 16;  // tokens whose partial sums meet at a time
  static constexpr int kSumPitch = kRows + kRowPadding;
  static constexpr int kSumBytes = kParts * kMatrices * kPassCols * kSumPitch * 4;
  // Per stage: its info, where each row goes, each row's weight, three barriers.
  static constexpr int kPerStage = kStageBytes + sizeof(StageInfo) + kN * 8 + 3 * 8;
  static constexpr int kFixed = kSumBytes + kMaxChoices * 8;

  std::byte* base;
  int num_stages;

  __host__ __device__ static constexpr int num_bytes(int num_stages) {
    return num_stages * kPerStage + kFixed;
  }
  __device__ std::byte* stage(int s) const { return base + s * kStageBytes; }
  __device__ std::byte* tokens(int s) const { return stage(s) + kStageWeightBytes; }
  __device__ float* sums() const {
    return reinterpret_cast<float*>(base + num_stages * kStageBytes);
  }
  __device__ StageInfo& info(int s) const {
    return reinterpret_cast<StageInfo*>(base + num_stages * kStageBytes + kSumBytes)[s];
  }
  __device__ int32_t* out_rows(int s) const {
    return reinterpret_cast<int32_t*>(&info(num_stages)) + s * 2 * kN;
  }
  __device__ float* scales(int s) const { return reinterpret_cast<float*>(out_rows(s) + kN); }
  // Slot and number of the one token's choices.
  __device__ int2* choices() const { return reinterpret_cast<int2*>(out_rows(num_stages)); }
  // Complete when: the stage's weights are on their way, everything has landed, all have read.
  __device__ uint32_t posted(int s) const { return smem_address(choices() + kMaxChoices) + s * 24; }
  __device__ uint32_t full(int s) const { return posted(s) + 8; }
  __device__ uint32_t empty(int s) const { return posted(s) + 16; }
};

// Walks round the ring of stages.
struct RingCursor {
  int num_stages;
  int stage = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++stage == num_stages) stage = 0, parity ^= 1;
  }
};

// The warp that copies weights: after looking up the choices together, one lane of it.
template <int kMatrices, int kN, int kRows>
struct WeightsProducer {
  static constexpr bool kIsDown = kMatrices == 1;
  using Layout = Smem<kMatrices, kN, kRows>;
  static constexpr int64_t kTileBytes = kTileRows * Bf16Format::kRowBytes;

  struct Item {
    int64_t idx;
    int tile;
    int first;
    int num_rows;
    int group;
    int slot;
  };

  const StreamArgs& args;
  const Layout& smem;
  RingCursor at;
  uint32_t call;  // the number of this one
  int64_t num_items = 0;
  int num_choices = 0;
  int num_k_tiles = 0;
  // Of the item being copied: what comes next of each matrix.
  Item item;
  const std::byte* from[kMatrices];
  int segment = 0;  // of kOneToken's down: the choice, and tiles left of it
  int num_left_of_segment = 0;

  // The experts of the one token: their slots and which choices they are, without those left out.
  __device__ void read_choices(int lane) {
    const int32_t expert = lane < args.top_k ? __ldcg(args.experts + lane) : -1;
    const unsigned chosen = __ballot_sync(~0u, expert >= 0);
    num_choices = __popc(chosen);
    if (expert >= 0) {
      smem.choices()[__popc(chosen & ((1u << lane) - 1))] =
          make_int2(__ldcg(args.slot_of_expert + expert), lane);
    }
    __syncwarp();
  }

  __device__ void find_item(Item& next) const {
    if (next.idx >= num_items) return;
    next.tile = static_cast<int>(next.idx) / args.num_groups;
    next.group = static_cast<int>(next.idx) % args.num_groups;
    if (args.rows == Rows::kPlan) {
      const int4 tile = __ldcg(reinterpret_cast<const int4*>(args.plan.tiles + next.tile));
      next.first = tile.y;
      next.num_rows = tile.z;
      next.slot = tile.w;
    } else if (args.rows == Rows::kOneToken) {
      next.first = next.tile;
      next.num_rows = 1;
      next.slot = num_choices > 0 ? smem.choices()[next.tile].x : 0;
    } else {
      next.first = next.tile * kN;
      next.num_rows = static_cast<int>(min(args.num_tokens - next.first, int64_t{kN}));
      next.slot = 0;
    }
  }

  __device__ const std::byte* strip(int matrix, int slot) const {
    const int row = item.group * kRows;
    return args.matrices[matrix] + slot * args.slot_bytes +
           int64_t{row / kTileRows} * args.num_k_tiles * kTileBytes +
           row % kTileRows * Bf16Format::kRowBytes;
  }
  __device__ void begin_item(const Item& next) {
    item = next;
    for (int m = 0; m < kMatrices; ++m) from[m] = strip(m, item.slot);
    segment = 0;
    num_left_of_segment = args.num_k_tiles;
  }

  // Starts the copies of the next k_tiles tiles and says what the stage will hold.
  __device__ void copy(int step, int num_steps) {
    constexpr int kTiles = Layout::kTiles;
    const int s = at.stage;
    const int k_tiles = min(num_k_tiles - step * kTiles, kTiles);
    const uint32_t full = smem.full(s);
    const uint32_t to = smem_address(smem.stage(s));
    barrier_arrive_expect(full, kMatrices * k_tiles * Layout::kPieceBytes);
    const bool is_segmented = kIsDown && args.rows == Rows::kOneToken;
    if (kRows == kTileRows && !is_segmented) {
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        bulk_copy(to + m * kUnitBytes, from[m], k_tiles * Layout::kPieceBytes, full, kEvictFirst);
        from[m] += k_tiles * kTileBytes;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if (i >= k_tiles) break;
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
          bulk_copy(to + m * kUnitBytes + i * Layout::kPieceBytes, from[m], Layout::kPieceBytes,
                    full, kEvictFirst);
          from[m] += kTileBytes;
        }
        if (is_segmented && --num_left_of_segment == 0 && ++segment < num_choices) {
          from[0] = strip(0, smem.choices()[segment].x);
          num_left_of_segment = args.num_k_tiles;
        }
      }
    }
    const int flags =
        (step == 0 ? kIsFirstOfItem : 0) | (step + 1 == num_steps ? kIsLastOfItem : 0);
    post(k_tiles, flags);
  }
  __device__ void post(int k_tiles, int flags) {
    StageInfo& info = smem.info(at.stage);
    *reinterpret_cast<int4*>(&info) = make_int4(k_tiles, flags, item.num_rows, item.group);
    *reinterpret_cast<int4*>(&info.tile) =
        make_int4(item.tile, item.first, static_cast<int>(call), 0);
    barrier_arrive(smem.posted(at.stage));
    at.advance();
  }

  __device__ void run(int lane) {
    if (!kIsDown) {
      wait_for_previous_kernels();
      let_next_kernel_start();
      call = __ldcg(args.state.num_calls) + 1;
    }
    int64_t num_tiles = (args.num_tokens + kN - 1) / kN;
    num_k_tiles = args.num_k_tiles;
    if (args.rows == Rows::kPlan) {
      num_tiles = __ldcg(args.plan.num_tiles);
    } else if (args.rows == Rows::kOneToken) {
      read_choices(lane);
      num_tiles = kIsDown ? 1 : num_choices;
      if (kIsDown) num_k_tiles *= num_choices;
    }
    num_items = num_tiles * args.num_groups;
    if (lane != 0) return;
    const int num_steps = max((num_k_tiles + Layout::kTiles - 1) / Layout::kTiles, 1);
    Item next;
    next.idx = blockIdx.x;
    find_item(next);
    int32_t* const counter = kIsDown ? args.state.next_down : args.state.next_gate_up;
    while (next.idx < num_items) {
      begin_item(next);
      // The next item takes two reads, each about as long as a stage's copies.
      int num_looked_up = 0;
      const auto look_up = [&] {
        if (num_looked_up++ == 0) {
          next.idx = int64_t{gridDim.x} + atomicAdd(counter, 1);
        } else {
          find_item(next);
        }
      };
      for (int step = 0; step < num_steps; ++step) {
        barrier_wait(smem.empty(at.stage), at.parity ^ 1);
        copy(step, num_steps);
        if (num_looked_up < 2) look_up();
      }
      while (num_looked_up < 2) look_up();
    }
    barrier_wait(smem.empty(at.stage), at.parity ^ 1);
    barrier_arrive(smem.full(at.stage));
    item = {};
    post(0, kIsEnd);
    if (kIsDown) end_call();
  }

  // When the last block is done, nobody reads the counters any more until the next call.
  __device__ void end_call() {
    wait_for_previous_kernels();  // so that this kernel does not end before the first one
    __threadfence();
    if (atomicAdd(args.state.num_blocks_done, 1) != static_cast<int>(gridDim.x) - 1) return;
    *args.state.next_gate_up = 0;
    *args.state.next_down = 0;
    *args.state.num_blocks_done = 0;
    *args.state.num_calls = call;
  }
};

// A warp that copies tokens' values, 16 bytes a lane, behind the weights.
template <int kMatrices, int kN, int kRows>
struct TokensProducer {
  static constexpr bool kIsDown = kMatrices == 1;
  using Layout = Smem<kMatrices, kN, kRows>;
  static constexpr int kChunks = Layout::kTiles * 8;  // 16 bytes each, of a row in a stage
  // The warp copies so many rows, or 32 chunks of one, at a time.
  static constexpr int kRowsAtATime = kChunks < 32 ? 32 / kChunks : 1;
  static constexpr int kWarps = num_tokens_warps(kN);
  static constexpr int kRowsOfWarp = kN / kWarps;

  const StreamArgs& args;
  const Layout& smem;
  int first_row;  // of this warp's kRowsOfWarp
  int lane;
  RingCursor at;
  int step = 0;  // of the item
  bool is_ready = false;
  // Of row first_row + lane, if that is the warp's: where the result goes, and its weight.
  int out_row = 0;
  float scale = 1;
  // Where the rows this lane copies of start, in chunks.
  uint32_t starts[kRowsOfWarp / kRowsAtATime];

  // Whether the first kernel's items [first, first + count) are finished. What this lane finds is
  // what the warp may read.
  __device__ bool are_finished(int first, int count, uint32_t call) const {
    bool all = true;
    for (int i = lane; i < count; i += 32) {
      uint32_t value;
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n"
                   : "=r"(value)
                   : "l"(args.state.finished + first + i)
                   : "memory");
      all = all && value == call;
    }
    return __all_sync(~0u, all);
  }
  // Items of the first kernel make the columns of h in their order, tile by tile.
  __device__ void wait_for_h(const StageInfo& info) {
    const int num_per_tile = kTileCols / args.gate_up_rows;
    const int first = (info.tile * args.num_k_tiles + step * Layout::kTiles) * num_per_tile;
    while (!are_finished(first, info.num_k_tiles * num_per_tile, info.call)) {
    }
  }

  __device__ void begin_item(const StageInfo& info) {
    step = 0;
    uint32_t own_start = 0;
    const int row = first_row + lane;
    if (lane < kRowsOfWarp && row < info.num_rows) {
      int64_t x_row = 0;
      if (args.rows == Rows::kPlan) {
        out_row = __ldcg(args.plan.sorted + info.first + row);
        x_row = kIsDown ? out_row : out_row / args.top_k;
        if (!kIsDown) scale = __ldcg(args.weights + out_row);
      } else if (args.rows == Rows::kOneToken) {
        out_row = kIsDown ? 0 : info.first;
        if (!kIsDown) scale = __ldcg(args.weights + smem.choices()[info.first].y);
      } else {
        out_row = info.first + row;
        x_row = out_row;
      }
      own_start = static_cast<uint32_t>(x_row * args.x_stride / 8);
    }
#pragma unroll
    for (int i = 0; i < kRowsOfWarp / kRowsAtATime; ++i) {
      starts[i] = __shfl_sync(~0u, own_start, i * kRowsAtATime + lane / kChunks);
    }
    if (kIsDown && args.rows != Rows::kOneToken) {
      const int count = args.num_k_tiles * (kTileCols / args.gate_up_rows);
      is_ready = are_finished(info.tile * count, count, info.call);
    }
  }

  __device__ void copy(const StageInfo& info) {
    const uint32_t to = smem_address(smem.tokens(at.stage));
    const auto* const from = reinterpret_cast<const uint4*>(args.x) + int64_t{step} * kChunks;
    const int num_chunks = info.num_k_tiles * 8;
#pragma unroll
    for (int i = 0; i < kRowsOfWarp / kRowsAtATime; ++i) {
      if (first_row + i * kRowsAtATime >= info.num_rows) break;
      const int row = first_row + i * kRowsAtATime + lane / kChunks;
#pragma unroll
      for (int chunk = lane % kChunks; chunk < kChunks; chunk += 32) {
        if (row < info.num_rows && chunk < num_chunks) {
          copy_async_16(to + row * Layout::kTokenPitch + chunk * 16, from + starts[i] + chunk);
        }
      }
    }
    barrier_arrive_after_copies(smem.full(at.stage));
  }

  __device__ void run() {
    if (!kIsDown) wait_for_previous_kernels();
    while (true) {
      barrier_wait(smem.posted(at.stage), at.parity);
      const StageInfo info = smem.info(at.stage);
      if (info.flags & kIsFirstOfItem) begin_item(info);
      if (kIsDown && !is_ready) wait_for_h(info);
      copy(info);
      ++step;
      if (info.flags & kIsLastOfItem) {
        const int row = first_row + lane;
        if (lane < kRowsOfWarp && row < info.num_rows) {
          smem.out_rows(at.stage)[row] = out_row;
          smem.scales(at.stage)[row] = scale;
        }
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(smem.full(at.stage));
      if (info.flags & kIsEnd) return;
      at.advance();
    }
  }
};
// Arrivals that complete a stage: of the weights' warp, and for each warp of tokens those of its
// lanes when their copies have landed and one when it has written where rows go.
constexpr int num_full_arrivals(int tile_rows) {
  return 1 + 33 * num_tokens_warps(tile_rows);
}

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
template <int kMatrices, int kN, int kRows>
struct Consumer {
  static constexpr int kBlocks = kN / 8;
  static constexpr bool kIsDown = kMatrices == 1;
  static constexpr int kRowGroups = kRows / 16;
  using Layout = Smem<kMatrices, kN, kRows>;

  const StreamArgs& args;
  const Layout& smem;
  int warp;
  int g;  // the lane as the fragments of a product number it
  int t;
  float sums[kMatrices][kBlocks][4] = {};

  __device__ void multiply(int stage, int num_k_tiles, int num_blocks) {
    const int part = warp / kRowGroups;
    const int half = part % 2;
    const std::byte* const rows = smem.stage(stage) + part / 2 * Layout::kPieceBytes +
                                  warp % kRowGroups * 16 * Bf16Format::kRowBytes;
    const std::byte* const tokens =
        smem.tokens(stage) + g * Layout::kTokenPitch + (2 * t + half) * 16;
#pragma unroll
    for (int unit = 0; unit < (kIsDown ? 2 : 1); ++unit) {
      const int k_tile = part / 2 + unit * (Layout::kTiles / 2);
      if (k_tile >= num_k_tiles) break;
      uint32_t a[kMatrices][2][4];
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        Bf16Format::load(a[m], rows + (kIsDown ? unit : m) * kUnitBytes, g, t, half);
      }
      // Two blocks of tokens at a time, so that their products overlap.
      constexpr int kAtATime = kBlocks < 2 ? 1 : 2;
#pragma unroll
      for (int first = 0; first < kBlocks; first += kAtATime) {
        if (first >= num_blocks) break;
        uint4 b[kAtATime];
#pragma unroll
        for (int i = 0; i < kAtATime; ++i) {
          b[i] = *reinterpret_cast<const uint4*>(tokens + (first + i) * 8 * Layout::kTokenPitch +
                                                 k_tile * 128);
        }
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
          for (int i = 0; i < kAtATime; ++i) {
            mma_16x8x16(sums[m][first + i], a[m][0], b[i].x, b[i].y);
          }
        }
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
          for (int i = 0; i < kAtATime; ++i) {
            mma_16x8x16(sums[m][first + i], a[m][1], b[i].z, b[i].w);
          }
        }
      }
    }
  }

  // Adds up the warps' sums in the order of their columns and writes the item's result.
  __device__ void finish_item(int stage, int num_rows, int group) {
    constexpr int kPassCols = Layout::kPassCols;
    constexpr int kPitch = Layout::kSumPitch;
    constexpr int kQuads = kRows / 4;
    float* const partial = smem.sums();  // [part][matrix][token][row]
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
              ((warp / kRowGroups * kMatrices + m) * kPassCols + block * 8 + 2 * t) * kPitch +
              warp % kRowGroups * 16 + g;
          to[0] = d[0];
          to[kPitch] = d[1];
          to[8] = d[2];
          to[kPitch + 8] = d[3];
        }
      }
      named_barrier(1, kConsumers);
      const int num_quads = min(num_rows - pass * kPassCols, kPassCols) * kQuads;
      for (int i = static_cast<int>(threadIdx.x); i < num_quads; i += kConsumers) {
        const int token = i / kQuads;
        const int row = i % kQuads * 4;
        float totals[kMatrices][4] = {};
#pragma unroll
        for (int part = 0; part < Layout::kParts; ++part) {
#pragma unroll
          for (int m = 0; m < kMatrices; ++m) {
            const float4 value = *reinterpret_cast<const float4*>(
                partial + ((part * kMatrices + m) * kPassCols + token) * kPitch + row);
            totals[m][0] += value.x;
            totals[m][1] += value.y;
            totals[m][2] += value.z;
            totals[m][3] += value.w;
          }
        }
        write_result(totals, smem.out_rows(stage)[pass * kPassCols + token],
                     int64_t{group} * kRows + row, smem.scales(stage)[pass * kPassCols + token]);
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

  // After the barrier that ends finish_item.
  __device__ void say_finished(const StageInfo& info) const {
    __threadfence();
    asm volatile("st.release.gpu.global.u32 [%0], %1;\n" ::"l"(
                     args.state.finished + info.tile * args.num_groups + info.group),
                 "r"(info.call)
                 : "memory");
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
    RingCursor at{args.num_stages};
    while (true) {
      barrier_wait(smem.full(at.stage), at.parity);
      const int4 what = *reinterpret_cast<const int4*>(&smem.info(at.stage));
      if (what.y & kIsEnd) return;
      multiply(at.stage, what.x, (what.z + 7) / 8);
      if (what.y & kIsLastOfItem) {
        finish_item(at.stage, what.z, what.w);
        if (!kIsDown && threadIdx.x == 0) say_finished(smem.info(at.stage));
      }
      __syncwarp();
      if (threadIdx.x % 32 == 0) barrier_arrive(smem.empty(at.stage));
      at.advance();
    }
  }
};

// Whether two blocks may share a multiprocessor.
constexpr bool can_pair(int tile_rows) {
  return tile_rows <= 32;
}

template <int kMatrices, int kN, int kRows>
__global__ void __launch_bounds__(num_threads(kN), can_pair(kN) ? 2 : 1)
    moe_stream_kernel(const __grid_constant__ StreamArgs args) {
  extern __shared__ __align__(128) std::byte memory[];
  const Smem<kMatrices, kN, kRows> smem{memory, args.num_stages};
  if (threadIdx.x == 0) {
    for (int s = 0; s < args.num_stages; ++s) {
      barrier_init(smem.posted(s), 1);
      barrier_init(smem.full(s), num_full_arrivals(kN));
      barrier_init(smem.empty(s), kConsumerWarps);
    }
    barrier_init_fence();
  }
  // The first kernel has waited for the call before, which counted itself, and not yet ended.
  uint32_t call = 0;
  if (kMatrices == 1 && threadIdx.x == kWeightsWarp * 32) call = __ldcg(args.state.num_calls) + 1;
  __syncthreads();
  if (kMatrices == 1) let_next_kernel_start();
  const auto warp = static_cast<int>(threadIdx.x / 32);
  const auto lane = static_cast<int>(threadIdx.x % 32);
  if (warp == kWeightsWarp) {
    WeightsProducer<kMatrices, kN, kRows> producer{args, smem, {args.num_stages}, call};
    producer.run(lane);
  } else if (warp > kWeightsWarp) {
    using Producer = TokensProducer<kMatrices, kN, kRows>;
    Producer producer{
        args, smem, (warp - kWeightsWarp - 1) * Producer::kRowsOfWarp, lane, {args.num_stages}};
    producer.run();
  } else {
    Consumer<kMatrices, kN, kRows> consumer{args, smem, warp, lane / 4, lane % 4};
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
constexpr int64_t kCounterBytes = 64;  // each in sectors of its own
constexpr int kNumCounters = 4;
constexpr int kFewestRows = 16;  // of an item

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

State place_state(std::byte* memory) {
  const auto counter = [&](int i) { return memory + i * kCounterBytes; };
  return {reinterpret_cast<int32_t*>(counter(0)), reinterpret_cast<int32_t*>(counter(1)),
          reinterpret_cast<int32_t*>(counter(2)), reinterpret_cast<uint32_t*>(counter(3)),
          reinterpret_cast<uint32_t*>(counter(kNumCounters))};
}

// All of a multiprocessor's shared memory, or half, less what blocks reserve.
constexpr int kSmemBytes = 227 * 1024;
constexpr int kHalfSmemBytes = (228 * 1024) / 2 - 1024;

template <int kMatrices, int kN, int kRows>
void stream_weights(StreamArgs args, bool is_paired, cudaStream_t stream) {
  using Layout = Smem<kMatrices, kN, kRows>;
  constexpr auto max_stages = [](int num_bytes) {
    return std::min((num_bytes - Layout::kFixed) / Layout::kPerStage, kMaxStages);
  };
  static_assert(max_stages(kSmemBytes) >= 4);
  args.num_stages = max_stages(is_paired ? kHalfSmemBytes : kSmemBytes);
  auto* const kernel = moe_stream_kernel<kMatrices, kN, kRows>;
  static const bool is_allowed = (allow_smem(kernel, kSmemBytes), true);
  (void)is_allowed;
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(device_traits().num_sms)),
          .block = dim3(num_threads(kN)),
          .smem_bytes = Layout::num_bytes(args.num_stages)},
         stream, args);
}

template <int kMatrices, int kN>
void stream_weights(int rows, bool is_paired, const StreamArgs& args, cudaStream_t stream) {
  if (rows == 64) return stream_weights<kMatrices, kN, 64>(args, is_paired, stream);
  if constexpr (kN <= 16) {
    if (rows == 32) return stream_weights<kMatrices, kN, 32>(args, is_paired, stream);
    if (rows == 16) return stream_weights<kMatrices, kN, 16>(args, is_paired, stream);
  } else if constexpr (kN == 32) {
    if (rows == 32) return stream_weights<kMatrices, kN, 32>(args, is_paired, stream);
  }
  AUGUR_REQUIRE(false, std::to_string(rows) + " rows by " + std::to_string(kN) + " tokens");
}

template <int kMatrices>
void stream_weights(const MoeDecodeConfig& config,
                    int rows,
                    const StreamArgs& args,
                    cudaStream_t stream) {
  const bool is_paired = config.is_paired;
  switch (config.tile_rows) {
    case 8:
      return stream_weights<kMatrices, 8>(rows, is_paired, args, stream);
    case 16:
      return stream_weights<kMatrices, 16>(rows, is_paired, args, stream);
    case 32:
      return stream_weights<kMatrices, 32>(rows, is_paired, args, stream);
    case 64:
      return stream_weights<kMatrices, 64>(rows, /*is_paired=*/false, args, stream);
    default:
      AUGUR_REQUIRE(false, config.to_string());
  }
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
              cudaStream_t stream) {
  const int64_t hidden = weights.gate.num_cols;
  const int64_t intermediate = weights.gate.num_rows;
  common.gate_up_rows = config.gate_up_rows;
  StreamArgs args = with_tokens(common, x, workspace.x, stream);
  args.matrices[0] = weights.gate.data;
  args.matrices[1] = weights.up.data;
  args.num_k_tiles = static_cast<int>(num_tiles(hidden));
  args.num_groups = static_cast<int>(padded(intermediate) / config.gate_up_rows);
  args.out = workspace.h;
  args.out_stride = padded(intermediate);
  args.num_out_cols = intermediate;
  args.shared = {};
  stream_weights<2>(config, config.gate_up_rows, args, stream);

  args = common;
  args.matrices[0] = weights.down.data;
  args.matrices[1] = nullptr;
  args.num_k_tiles = static_cast<int>(num_tiles(intermediate));
  args.num_groups = static_cast<int>(padded(hidden) / config.down_rows);
  args.x = workspace.h;
  args.x_stride = padded(intermediate);
  args.num_out_cols = hidden;
  args.out = out.data;
  args.out_stride = out.row_stride;
  args.is_out_bf16 = out.dtype == DType::kBF16;
  args.is_out_aligned = is_aligned(out, 4);
  stream_weights<1>(config, config.down_rows, args, stream);
}

}  // namespace

std::string MoeDecodeConfig::to_string() const {
  return "tiles of " + std::to_string(tile_rows) + " tokens, items of " +
         std::to_string(gate_up_rows) + " rows of gate and up and " + std::to_string(down_rows) +
         " of down, " + (needs_plan ? "planned" : "without a plan") + (is_paired ? ", paired" : "");
}

namespace {

// num_mlps: different ones that the tokens can need. is_summed: down makes the tokens' sums itself.
MoeDecodeConfig decode_config(int64_t num_tokens,
                              int64_t num_mlps,
                              bool is_summed,
                              int64_t hidden_size,
                              int64_t intermediate_size) {
  MoeDecodeConfig config;
  config.tile_rows = num_tokens <= 8 ? 8 : num_tokens <= 16 ? 16 : num_tokens <= 32 ? 32 : 64;
  const int min_rows = config.tile_rows <= 16 ? 16 : config.tile_rows;
  const auto rows_for = [&](int64_t num_strips, int64_t wanted_items) {
    int rows = kTileRows;
    while (rows > min_rows && num_strips * (kTileRows / rows) < wanted_items) rows /= 2;
    return rows;
  };
  config.gate_up_rows =
      num_tokens == 1 ? kFewestRows : rows_for(num_mlps * num_tiles(intermediate_size), 3 * 128);
  config.down_rows = is_summed ? rows_for(num_tiles(hidden_size), 128)
                               : rows_for(num_mlps * num_tiles(hidden_size), 3 * 128);
  config.is_paired = num_tokens == 1;
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

int64_t moe_decode_state_bytes(int64_t num_tokens, int top_k, int64_t intermediate_size) {
  return kNumCounters * kCounterBytes +
         num_tokens * top_k * (padded(intermediate_size) / kFewestRows) * 4;
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
  common.state = place_state(args.state);
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
           workspace, stream);
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
  common.state = place_state(args.state);
  common.rows = Rows::kAllTokens;
  common.num_tokens = mlp.x.num_rows;
  common.top_k = 1;
  run_mlps(common, mlp.weights, mlp.x, mlp.out, args.config, workspace, stream);
}

int64_t bytes_moved(const MlpDecodeArgs& args) {
  const PackedMatrix& gate = args.mlp.weights.gate;
  return 3 * gate.num_rows * gate.num_cols * 2 +
         args.mlp.x.num_rows * gate.num_cols * (2 + dtype_bytes(args.mlp.out.dtype));
}

}  // namespace augur::cuda
