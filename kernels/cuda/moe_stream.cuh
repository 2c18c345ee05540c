// Streaming weights past few tokens: what the copying and the multiplying warps of
// sm90_moe_decode.cu share.
//
// A block takes items: kRows rows of kMatrices matrices (gate and up, or down) by a tile of up to
// kN tokens, by all columns. It walks through an item in steps, each a stage of a ring in shared
// memory: 16 KiB of weights and the same columns of the tokens. Three barriers guard a stage: its
// weights are on their way (posted), all of it has landed (full), all of it has been read (empty).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/moe_plan.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/tensor.h"

namespace augur::cuda::moe_stream {

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
  int choice;  // of kOneToken: which one the tile is
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

// Arrivals that complete a stage: of the weights' warp, and for each warp of tokens those of its
// lanes when their copies have landed and one when it has written where rows go.
constexpr int num_full_arrivals(int tile_rows) {
  return 1 + 33 * num_tokens_warps(tile_rows);
}

}  // namespace augur::cuda::moe_stream
