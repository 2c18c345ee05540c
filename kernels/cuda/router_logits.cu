#include "kernels/cuda/router_logits.h"

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/router.h"
#include "kernels/cuda/row_access.cuh"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;

// --- Few tokens: a block per expert, which reads the expert's row ahead of time.

constexpr int kGemvThreads = 256;
constexpr int kGemvWarps = kGemvThreads / kWarpLanes;
constexpr int64_t kMaxGemvCols = 4 * kGemvThreads * 4;

// Thread i has columns [4 i, 4 i + 4) and those 1,024 further on, kVectors times. All of x is asked
// for before any of it is used.
template <int kVectors, int kMaxTokens>
__global__ void __launch_bounds__(kGemvThreads)
    gemv_kernel(RouterArgs args, float* logits) {
  __shared__ float sums[kMaxTokens][kGemvWarps];
  const int64_t hidden = args.x.num_cols;
  const int expert = blockIdx.x;
  const auto col_of = [](int v) { return (v * kGemvThreads + static_cast<int>(threadIdx.x)) * 4; };
  float4 weight[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    weight[v] = make_float4(0, 0, 0, 0);
    if (col_of(v) < hidden) {
      weight[v] = *reinterpret_cast<const float4*>(args.weight + expert * hidden + col_of(v));
    }
  }
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int num_tokens = static_cast<int>(args.x.num_rows);
  float4 x[kMaxTokens][kVectors];
#pragma unroll
  for (int token = 0; token < kMaxTokens; ++token) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      x[token][v] = make_float4(0, 0, 0, 0);
      if (token < num_tokens && col_of(v) < hidden) {
        x[token][v] =
            *reinterpret_cast<const float4*>(row_of<const float>(args.x, token) + col_of(v));
      }
    }
  }
#pragma unroll
  for (int token = 0; token < kMaxTokens; ++token) {
    float sum = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      sum += x[token][v].x * weight[v].x + x[token][v].y * weight[v].y +
             x[token][v].z * weight[v].z + x[token][v].w * weight[v].w;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % kWarpLanes == 0) sums[token][threadIdx.x / kWarpLanes] = sum;
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < num_tokens) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kGemvWarps; ++w) sum += sums[threadIdx.x][w];
    logits[int64_t{threadIdx.x} * args.num_experts + expert] = sum;
  }
}

// --- More tokens: tensor cores. A float is the sum of its bf16 rounding and the rounding of what
// that leaves, to 16 bits; three of the four products of such pairs matter.

constexpr int kStepCols = 32;
constexpr int kChunksPerRow = kStepCols / 8;

// Bytes to 16-byte chunk `chunk` of a row in a tile of rows of 64 bytes. Eight rows of one chunk
// lie in different banks, so that ldmatrix has no conflicts.
__device__ __forceinline__ uint32_t tile_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * (kStepCols * 2) + ((chunk ^ (row / 2 % 4)) * 16));
}

// Eight values of a row, zero past the end. kIsWide: rows are multiples of 8 long, so that either
// all eight are there or none.
template <bool kIsWide>
__device__ __forceinline__ void load_row_part(const float* row,
                                              int64_t col,
                                              int64_t end,
                                              float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = 0;
  if constexpr (kIsWide) {
    if (col < end) load_values(row + col, values);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (col + i < end) values[i] = row[col + i];
    }
  }
}

__device__ __forceinline__ void split_pair(float a, float b, uint32_t& high, uint32_t& low) {
  high = pack_bf16(a, b);
  low = pack_bf16(a - __uint_as_float(high << 16), b - __uint_as_float(high & 0xFFFF0000u));
}

__device__ __forceinline__ void split_8(const float (&values)[8], uint4& high, uint4& low) {
  split_pair(values[0], values[1], high.x, low.x);
  split_pair(values[2], values[3], high.y, low.y);
  split_pair(values[4], values[5], high.z, low.z);
  split_pair(values[6], values[7], high.w, low.w);
}

// Few tokens: a block has one tile and all of its slice of the columns at once. What counts is the
// time to the first byte, so everything is asked for together, the weights before the kernels ahead
// have ended; and the time to fetch instructions, so nothing is there twice.
constexpr int kSmallExperts = 32;
constexpr int kSmallCols = 128;
constexpr int kSmallChunks = kSmallCols / 8;
constexpr int kSmallThreads = 128;

// Bytes to 16-byte chunk `chunk` of a row of 256 bytes; eight rows lie in different banks.
__device__ __forceinline__ uint32_t small_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * (kSmallCols * 2) + ((chunk ^ (row % 8)) * 16));
}

// Warp w has experts [8 w, 8 w + 8) of the tile, and all its tokens.
template <int kTokens, bool kIsWide>
__global__ void __launch_bounds__(kSmallThreads)
    small_split_product_kernel(RouterArgs args, float* partial) {
  constexpr int kRows = kTokens + kSmallExperts;  // the tokens' before the experts'
  constexpr int kTokenParts = kTokens * kSmallChunks / kSmallThreads;
  constexpr int kExpertParts = kSmallExperts * kSmallChunks / kSmallThreads;
  constexpr int kRowsPerPart = kSmallThreads / kSmallChunks;
  constexpr int kFragments = kTokens / 16;
  __shared__ __align__(128) unsigned char tiles[2][kRows * kSmallCols * 2];  // high, low parts
  const int num_tokens = static_cast<int>(args.x.num_rows);
  const int num_experts = args.num_experts;
  const int hidden = static_cast<int>(args.x.num_cols);
  const int first_token = static_cast<int>(blockIdx.x) * kTokens;
  const int first_expert = static_cast<int>(blockIdx.y) * kSmallExperts;
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;
  const int chunk = threadIdx.x % kSmallChunks;  // of every part of the thread
  const int row = threadIdx.x / kSmallChunks;    // of its first part
  const int col = static_cast<int>(blockIdx.z) * kSmallCols + chunk * 8;

  float weights[kExpertParts][8];
#pragma unroll
  for (int p = 0; p < kExpertParts; ++p) {
    const int expert = first_expert + row + p * kRowsPerPart;
    load_row_part<kIsWide>(args.weight + int64_t{expert} * hidden, col,
                           expert < num_experts ? hidden : 0, weights[p]);
  }
  let_next_kernel_start();
  wait_for_previous_kernels();
  float x[kTokenParts][8];
#pragma unroll
  for (int p = 0; p < kTokenParts; ++p) {
    const int token = first_token + row + p * kRowsPerPart;
    load_row_part<kIsWide>(row_of<const float>(args.x, token), col, token < num_tokens ? hidden : 0,
                           x[p]);
  }
  const auto put = [&](int at_row, const float(&values)[8]) {
    uint4 high;
    uint4 low;
    split_8(values, high, low);
    *reinterpret_cast<uint4*>(tiles[0] + small_offset(at_row, chunk)) = high;
    *reinterpret_cast<uint4*>(tiles[1] + small_offset(at_row, chunk)) = low;
  };
#pragma unroll
  for (int p = 0; p < kExpertParts; ++p) put(kTokens + row + p * kRowsPerPart, weights[p]);
#pragma unroll
  for (int p = 0; p < kTokenParts; ++p) put(row + p * kRowsPerPart, x[p]);
  __syncthreads();

  const uint32_t high = smem_address(tiles[0]);
  const uint32_t low = smem_address(tiles[1]);
  float sums[kFragments][4] = {};
#pragma unroll 2
  for (int k = 0; k < kSmallCols / 32; ++k) {
    // Eight experts by 32 columns; chunk 4 k + i in register i.
    const uint32_t expert_part = small_offset(kTokens + warp * 8 + lane % 8, 4 * k + lane / 8);
    uint32_t w_high[4];
    uint32_t w_low[4];
    load_matrix_x4(w_high, high + expert_part);
    load_matrix_x4(w_low, low + expert_part);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int m = 0; m < kFragments; ++m) {
        const uint32_t token_part = small_offset(m * 16 + lane % 16, 4 * k + 2 * half + lane / 16);
        uint32_t x_high[4];
        uint32_t x_low[4];
        load_matrix_x4(x_high, high + token_part);
        load_matrix_x4(x_low, low + token_part);
        mma_16x8x16(sums[m], x_low, w_high[2 * half], w_high[2 * half + 1]);
        mma_16x8x16(sums[m], x_high, w_low[2 * half], w_low[2 * half + 1]);
        mma_16x8x16(sums[m], x_high, w_high[2 * half], w_high[2 * half + 1]);
      }
    }
  }

  float* const to = partial + int64_t{blockIdx.z} * num_tokens * num_experts;
#pragma unroll
  for (int m = 0; m < kFragments; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = first_token + m * 16 + lane / 4 + i / 2 * 8;
      const int expert = first_expert + warp * 8 + lane % 4 * 2 + i % 2;
      if (token < num_tokens && expert < num_experts) {
        to[token * num_experts + expert] = sums[m][i];
      }
    }
  }
}

// Many tokens. A tile of kTokens x kExperts sums; kTokenWarps x kExpertWarps warps share it. While
// the tensor cores work on one step of columns in shared memory, the next goes there from
// registers, and the one after is on its way to registers. Weights that are bf16 values, as those
// of most models are, have no low parts: steps without any leave those products out.
template <int kTokens, int kExperts, int kTokenWarps, int kExpertWarps>
struct SplitTile {
  static constexpr int kThreads = kTokenWarps * kExpertWarps * kWarpLanes;
  static constexpr int kRows = kTokens + kExperts;  // the tokens' before the experts'
  static constexpr int kPartBytes = kRows * kStepCols * 2;
  static constexpr int64_t kSmemBytes = 2 * 2 * kPartBytes;  // two stages of high and low parts
};

template <int kTokens, int kExperts, int kTokenWarps, int kExpertWarps, bool kIsWide>
__global__ void __launch_bounds__(kTokenWarps* kExpertWarps* kWarpLanes)
    split_product_kernel(RouterArgs args, RouterLogitsPlan plan, float* partial) {
  using Tile = SplitTile<kTokens, kExperts, kTokenWarps, kExpertWarps>;
  constexpr int kParts = Tile::kRows * kChunksPerRow / Tile::kThreads;  // chunks a thread brings
  static_assert(Tile::kRows * kChunksPerRow % Tile::kThreads == 0);
  constexpr int kTokenFragments = kTokens / kTokenWarps / 16;
  constexpr int kExpertPairs = kExperts / kExpertWarps / 16;
  extern __shared__ __align__(128) unsigned char tiles[];
  const auto part_of = [](int stage, int which) {
    return tiles + (stage * 2 + which) * Tile::kPartBytes;
  };

  const int64_t num_tokens = args.x.num_rows;
  const int64_t hidden = args.x.num_cols;
  const int64_t first_token = int64_t{blockIdx.x} * kTokens;
  const int first_expert = static_cast<int>(blockIdx.y) * kExperts;
  const int64_t first_col = blockIdx.z * plan.slice_cols;
  const int64_t end_col = min(hidden, first_col + plan.slice_cols);
  const int lane = threadIdx.x % kWarpLanes;
  const int token_base =
      static_cast<int>(threadIdx.x) / kWarpLanes % kTokenWarps * (kTokens / kTokenWarps);
  const int expert_base =
      static_cast<int>(threadIdx.x) / kWarpLanes / kTokenWarps * (kExperts / kExpertWarps);
  const int chunk = threadIdx.x % kChunksPerRow;  // of every part
  const auto row_of_part = [](int p) {
    return (p * Tile::kThreads + static_cast<int>(threadIdx.x)) / kChunksPerRow;
  };
  let_next_kernel_start();
  wait_for_previous_kernels();

  float parts[kParts][8];
  const auto bring = [&](int64_t col) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int row = row_of_part(p);
      const bool is_token = row < kTokens;
      const bool is_there = is_token ? first_token + row < num_tokens
                                     : first_expert + row - kTokens < args.num_experts;
      const float* const from = is_token ? row_of<const float>(args.x, first_token + row)
                                         : args.weight + (first_expert + row - kTokens) * hidden;
      load_row_part<kIsWide>(from, col + chunk * 8, is_there ? end_col : 0, parts[p]);
    }
  };
  // Returns whether any weight has a low part.
  const auto put = [&](int stage) {
    uint32_t low_bits = 0;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      uint4 high;
      uint4 low;
      split_8(parts[p], high, low);
      const int row = row_of_part(p);
      *reinterpret_cast<uint4*>(part_of(stage, 0) + tile_offset(row, chunk)) = high;
      *reinterpret_cast<uint4*>(part_of(stage, 1) + tile_offset(row, chunk)) = low;
      if (row >= kTokens) low_bits |= low.x | low.y | low.z | low.w;
    }
    return low_bits != 0;
  };

  float sums[kTokenFragments][2 * kExpertPairs][4] = {};
  // Columns [16 k, 16 k + 16) of the step.
  const auto multiply = [&](int stage, int k, bool has_low) {
    const uint32_t high = smem_address(part_of(stage, 0));
    const uint32_t low = smem_address(part_of(stage, 1));
    const auto token_offset = [&](int m) {
      return tile_offset(token_base + m * 16 + lane % 16, 2 * k + lane / 16);
    };
    // Sixteen experts: chunks 2 k and 2 k + 1 of the first eight, then of the others.
    const auto expert_offset = [&](int n) {
      return tile_offset(kTokens + expert_base + n * 16 + lane / 16 * 8 + lane % 8,
                         2 * k + lane / 8 % 2);
    };
    const auto add_products = [&](const uint32_t(&x)[kTokenFragments][4],
                                  const uint32_t(&w)[kExpertPairs][4]) {
#pragma unroll
      for (int n = 0; n < 2 * kExpertPairs; ++n) {
#pragma unroll
        for (int m = 0; m < kTokenFragments; ++m) {
          mma_16x8x16(sums[m][n], x[m], w[n / 2][n % 2 * 2], w[n / 2][n % 2 * 2 + 1]);
        }
      }
    };
    uint32_t w[kExpertPairs][4];
    uint32_t x[kTokenFragments][4];
#pragma unroll
    for (int n = 0; n < kExpertPairs; ++n) load_matrix_x4(w[n], high + expert_offset(n));
#pragma unroll
    for (int m = 0; m < kTokenFragments; ++m) load_matrix_x4(x[m], low + token_offset(m));
    add_products(x, w);
#pragma unroll
    for (int m = 0; m < kTokenFragments; ++m) load_matrix_x4(x[m], high + token_offset(m));
    add_products(x, w);
    if (has_low) {
#pragma unroll
      for (int n = 0; n < kExpertPairs; ++n) load_matrix_x4(w[n], low + expert_offset(n));
      add_products(x, w);
    }
  };

  bring(first_col);
  bool has_low = put(0);
  if (first_col + kStepCols < end_col) bring(first_col + kStepCols);
  has_low = __syncthreads_or(has_low);
  int stage = 0;
  for (int64_t col = first_col; col < end_col; col += kStepCols, stage ^= 1) {
    multiply(stage, 0, has_low);
    bool next_has_low = false;
    if (col + kStepCols < end_col) next_has_low = put(stage ^ 1);
    if (col + 2 * kStepCols < end_col) bring(col + 2 * kStepCols);
    multiply(stage, 1, has_low);
    has_low = __syncthreads_or(next_has_low);
  }

  float* const to = partial + blockIdx.z * num_tokens * args.num_experts;
#pragma unroll
  for (int m = 0; m < kTokenFragments; ++m) {
#pragma unroll
    for (int n = 0; n < 2 * kExpertPairs; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t token = first_token + token_base + m * 16 + lane / 4 + i / 2 * 8;
        const int expert = first_expert + expert_base + n * 8 + lane % 4 * 2 + i % 2;
        if (token < num_tokens && expert < args.num_experts) {
          to[token * args.num_experts + expert] = sums[m][n][i];
        }
      }
    }
  }
}
static_assert(kStepCols == 32);  // multiply's two halves

template <int kTokens, int kExperts, int kTokenWarps, int kExpertWarps, bool kIsWide>
void launch_split(const RouterArgs& args,
                  const RouterLogitsPlan& plan,
                  float* partial,
                  cudaStream_t stream) {
  using Tile = SplitTile<kTokens, kExperts, kTokenWarps, kExpertWarps>;
  const auto kernel = split_product_kernel<kTokens, kExperts, kTokenWarps, kExpertWarps, kIsWide>;
  allow_smem(kernel, Tile::kSmemBytes);
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(args.x.num_rows, kTokens)),
                       static_cast<unsigned>(ceil_div(args.num_experts, kExperts)),
                       static_cast<unsigned>(plan.num_slices)),
          .block = dim3(Tile::kThreads),
          .smem_bytes = Tile::kSmemBytes},
         stream, args, plan, partial);
}

constexpr int kLargeTokens = 64;  // tiles of 128 were no faster
constexpr int kLargeExperts = 128;

template <bool kIsWide>
void launch_tiles(const RouterArgs& args,
                  const RouterLogitsPlan& plan,
                  float* partial,
                  cudaStream_t stream) {
  const Launch small = {
      .grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(args.x.num_rows, plan.token_tile)),
                   static_cast<unsigned>(ceil_div(args.num_experts, kSmallExperts)),
                   static_cast<unsigned>(plan.num_slices)),
      .block = dim3(kSmallThreads)};
  if (plan.token_tile == 16) {
    launch(small_split_product_kernel<16, kIsWide>, small, stream, args, partial);
  } else if (plan.token_tile == 32) {
    launch(small_split_product_kernel<32, kIsWide>, small, stream, args, partial);
  } else if (plan.is_small) {
    launch(small_split_product_kernel<64, kIsWide>, small, stream, args, partial);
  } else {
    launch_split<kLargeTokens, kLargeExperts, 2, 4, kIsWide>(args, plan, partial, stream);
  }
}

constexpr int64_t kMaxSmallTokens = 256;
// Blocks to have work for: two per multiprocessor of the device this was measured on. A
// constant, so that the same sizes give the same bits everywhere.
constexpr int64_t kLargeTargetBlocks = 264;
constexpr int64_t kMaxLargeSlices = 16;

}  // namespace

RouterLogitsPlan plan_router_logits(int64_t num_tokens, int64_t hidden, int num_experts) {
  if (num_tokens <= kMaxGemvTokens && hidden % 4 == 0 && hidden <= kMaxGemvCols) {
    return {.token_tile = 0, .num_slices = 1, .slice_cols = hidden};
  }
  if (num_tokens <= kMaxSmallTokens) {
    return {.token_tile = num_tokens <= 16 ? 16 : (num_tokens <= 64 ? 32 : 64),
            .is_small = true,
            .num_slices = static_cast<int>(ceil_div<int64_t>(hidden, kSmallCols)),
            .slice_cols = kSmallCols};
  }
  const int64_t num_tiles =
      ceil_div<int64_t>(num_tokens, kLargeTokens) * ceil_div<int64_t>(num_experts, kLargeExperts);
  const int64_t num_slices =
      std::clamp<int64_t>(kLargeTargetBlocks / num_tiles, 1,
                          std::min(kMaxLargeSlices, ceil_div<int64_t>(hidden, 4 * kStepCols)));
  const int64_t slice_cols = ceil_div<int64_t>(ceil_div(hidden, num_slices), kStepCols) * kStepCols;
  return {.token_tile = kLargeTokens,
          .num_slices = static_cast<int>(ceil_div(hidden, slice_cols)),
          .slice_cols = slice_cols};
}

void router_logits(const RouterArgs& args,
                   const RouterLogitsPlan& plan,
                   float* partial,
                   cudaStream_t stream) {
  const int64_t hidden = args.x.num_cols;
  if (plan.token_tile == 0) {
    const Launch how = {.grid = dim3(static_cast<unsigned>(args.num_experts)),
                        .block = dim3(kGemvThreads)};
    const bool is_narrow = hidden <= kMaxGemvCols / 2;
    if (args.x.num_rows == 1) {
      launch(is_narrow ? gemv_kernel<2, 1> : gemv_kernel<4, 1>, how, stream, args, partial);
    } else {
      launch(is_narrow ? gemv_kernel<2, kMaxGemvTokens> : gemv_kernel<4, kMaxGemvTokens>, how,
             stream, args, partial);
    }
    return;
  }
  if (hidden % 8 == 0) {
    launch_tiles<true>(args, plan, partial, stream);
  } else {
    launch_tiles<false>(args, plan, partial, stream);
  }
}

}  // namespace augur::cuda
