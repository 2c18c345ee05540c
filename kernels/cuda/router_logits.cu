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
    gemv_kernel(RouterArgs args, float* logits, int32_t* ticket) {
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
  if (expert == 0 && threadIdx.x == 0) *ticket = 0;
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

// Eight values of a row, zero past the end of the row or of the matrix.
__device__ __forceinline__ void load_row_part(
    const float* row, int64_t col, int64_t end, bool is_wide, float (&values)[8]) {
  if (is_wide && col + 8 <= end) {
    load_8(row + col, values);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = col + i < end ? row[col + i] : 0.0f;
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

// Few tokens: small tiles, long steps. What counts is the time to the first byte, so a step of a
// row is asked for at once, and the weights before the kernels ahead have ended.
constexpr int kSmallExperts = 32;
constexpr int kSmallCols = 128;
constexpr int kSmallChunks = kSmallCols / 8;
constexpr int kSmallThreads = 128;

// Bytes to 16-byte chunk `chunk` of a row of 256 bytes; eight rows lie in different banks.
__device__ __forceinline__ uint32_t small_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * (kSmallCols * 2) + ((chunk ^ (row % 8)) * 16));
}

// Warp w has experts [8 w, 8 w + 8) of the tile, and all its tokens.
template <int kTokens>
__global__ void __launch_bounds__(kSmallThreads) small_split_product_kernel(
    RouterArgs args, RouterLogitsPlan plan, bool is_wide, float* partial, int32_t* ticket) {
  constexpr int kRows = kTokens + kSmallExperts;  // the tokens' before the experts'
  constexpr int kTokenParts = kTokens * kSmallChunks / kSmallThreads;
  constexpr int kExpertParts = kSmallExperts * kSmallChunks / kSmallThreads;
  constexpr int kFragments = kTokens / 16;
  __shared__ __align__(128) unsigned char tiles[2][kRows * kSmallCols * 2];  // high, low parts
  const int64_t num_tokens = args.x.num_rows;
  const int64_t hidden = args.x.num_cols;
  const int64_t first_token = int64_t{blockIdx.x} * kTokens;
  const int first_expert = static_cast<int>(blockIdx.y) * kSmallExperts;
  const int64_t first_col = blockIdx.z * plan.slice_cols;
  const int64_t end_col = min(hidden, first_col + plan.slice_cols);
  const int lane = threadIdx.x % kWarpLanes;
  const int warp = threadIdx.x / kWarpLanes;

  const auto row_of_part = [](int p) {
    return (p * kSmallThreads + static_cast<int>(threadIdx.x)) / kSmallChunks;
  };
  const int chunk = threadIdx.x % kSmallChunks;  // of every part
  static_assert(kSmallThreads % kSmallChunks == 0);
  float weights[kExpertParts][8];
  const auto bring_weights = [&](int64_t col) {
#pragma unroll
    for (int p = 0; p < kExpertParts; ++p) {
      const int expert = first_expert + row_of_part(p);
      load_row_part(args.weight + int64_t{expert} * hidden, col + chunk * 8,
                    expert < args.num_experts ? end_col : 0, is_wide, weights[p]);
    }
  };
  float x[kTokenParts][8];
  const auto bring_x = [&](int64_t col) {
#pragma unroll
    for (int p = 0; p < kTokenParts; ++p) {
      const int64_t token = first_token + row_of_part(p);
      load_row_part(row_of<const float>(args.x, token), col + chunk * 8,
                    token < num_tokens ? end_col : 0, is_wide, x[p]);
    }
  };
  const auto put = [&](int row, const float(&values)[8]) {
    uint4 high;
    uint4 low;
    split_8(values, high, low);
    *reinterpret_cast<uint4*>(tiles[0] + small_offset(row, chunk)) = high;
    *reinterpret_cast<uint4*>(tiles[1] + small_offset(row, chunk)) = low;
  };
  bring_weights(first_col);
  let_next_kernel_start();
  wait_for_previous_kernels();
  bring_x(first_col);
  if (blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0 && threadIdx.x == 0) *ticket = 0;

  const uint32_t high = smem_address(tiles[0]);
  const uint32_t low = smem_address(tiles[1]);
  float sums[kFragments][4] = {};
  for (int64_t col = first_col; col < end_col; col += kSmallCols) {
#pragma unroll
    for (int p = 0; p < kExpertParts; ++p) put(kTokens + row_of_part(p), weights[p]);
#pragma unroll
    for (int p = 0; p < kTokenParts; ++p) put(row_of_part(p), x[p]);
    __syncthreads();
    if (col + kSmallCols < end_col) {
      bring_weights(col + kSmallCols);
      bring_x(col + kSmallCols);
    }
#pragma unroll
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
          const uint32_t token_part =
              small_offset(m * 16 + lane % 16, 4 * k + 2 * half + lane / 16);
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
    __syncthreads();
  }

  float* const to = partial + blockIdx.z * num_tokens * args.num_experts;
#pragma unroll
  for (int m = 0; m < kFragments; ++m) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t token = first_token + m * 16 + lane / 4 + i / 2 * 8;
      const int expert = first_expert + warp * 8 + lane % 4 * 2 + i % 2;
      if (token < num_tokens && expert < args.num_experts) {
        to[token * args.num_experts + expert] = sums[m][i];
      }
    }
  }
}

// Many tokens. A tile of kTokens x kExperts sums; kTokenWarps x kExpertWarps warps share it. While
// the tensor cores work on one step of columns in shared memory, the next is on its way to
// registers.
template <int kTokens, int kExperts, int kTokenWarps, int kExpertWarps>
__global__ void __launch_bounds__(kTokenWarps* kExpertWarps* kWarpLanes)
    split_product_kernel(RouterArgs args, RouterLogitsPlan plan, bool is_wide, float* partial) {
  constexpr int kThreads = kTokenWarps * kExpertWarps * kWarpLanes;
  constexpr int kRows = kTokens + kExperts;
  constexpr int kParts = kRows * kChunksPerRow / kThreads;  // chunks that a thread brings
  static_assert(kRows * kChunksPerRow % kThreads == 0);
  constexpr int kTokenFragments = kTokens / kTokenWarps / 16;
  constexpr int kExpertPairs = kExperts / kExpertWarps / 16;
  // Of each stage the high parts of all rows, tokens before experts, then the low parts.
  __shared__ __align__(128) unsigned char tiles[2][2][kRows * kStepCols * 2];

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
  let_next_kernel_start();
  wait_for_previous_kernels();

  float parts[kParts][8];
  const auto bring = [&](int64_t col) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int chunk = p * kThreads + static_cast<int>(threadIdx.x);
      const int row = chunk / kChunksPerRow;
      const float* from = nullptr;
      if (row < kTokens) {
        if (first_token + row < num_tokens) from = row_of<const float>(args.x, first_token + row);
      } else if (first_expert + row - kTokens < args.num_experts) {
        from = args.weight + int64_t{first_expert + row - kTokens} * hidden;
      }
      load_row_part(from, col + chunk % kChunksPerRow * 8, from == nullptr ? 0 : end_col, is_wide,
                    parts[p]);
    }
  };
  const auto put = [&](int stage) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int chunk = p * kThreads + static_cast<int>(threadIdx.x);
      const uint32_t offset = tile_offset(chunk / kChunksPerRow, chunk % kChunksPerRow);
      uint4 high;
      uint4 low;
      split_8(parts[p], high, low);
      *reinterpret_cast<uint4*>(tiles[stage][0] + offset) = high;
      *reinterpret_cast<uint4*>(tiles[stage][1] + offset) = low;
    }
  };

  float sums[kTokenFragments][2 * kExpertPairs][4] = {};
  const auto multiply = [&](int stage) {
    const uint32_t high = smem_address(tiles[stage][0]);
    const uint32_t low = smem_address(tiles[stage][1]);
#pragma unroll
    for (int k = 0; k < kStepCols / 16; ++k) {
      uint32_t x_high[kTokenFragments][4];
      uint32_t x_low[kTokenFragments][4];
#pragma unroll
      for (int m = 0; m < kTokenFragments; ++m) {
        const uint32_t offset = tile_offset(token_base + m * 16 + lane % 16, 2 * k + lane / 16);
        load_matrix_x4(x_high[m], high + offset);
        load_matrix_x4(x_low[m], low + offset);
      }
#pragma unroll
      for (int n = 0; n < kExpertPairs; ++n) {
        // Sixteen experts: columns 2 k and 2 k + 1 of the first eight, then of the others.
        const uint32_t offset = tile_offset(
            kTokens + expert_base + n * 16 + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2);
        uint32_t w_high[4];
        uint32_t w_low[4];
        load_matrix_x4(w_high, high + offset);
        load_matrix_x4(w_low, low + offset);
#pragma unroll
        for (int m = 0; m < kTokenFragments; ++m) {
#pragma unroll
          for (int j = 0; j < 2; ++j) {
            float(&sum)[4] = sums[m][2 * n + j];
            mma_16x8x16(sum, x_low[m], w_high[2 * j], w_high[2 * j + 1]);
            mma_16x8x16(sum, x_high[m], w_low[2 * j], w_low[2 * j + 1]);
            mma_16x8x16(sum, x_high[m], w_high[2 * j], w_high[2 * j + 1]);
          }
        }
      }
    }
  };

  bring(first_col);
  put(0);
  __syncthreads();
  int stage = 0;
  for (int64_t col = first_col; col < end_col; col += kStepCols, stage ^= 1) {
    const bool has_next = col + kStepCols < end_col;
    if (has_next) bring(col + kStepCols);
    multiply(stage);
    if (has_next) put(stage ^ 1);
    __syncthreads();
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

constexpr int64_t kLargeTokens = 64;
constexpr int64_t kLargeExperts = 128;
constexpr int64_t kMaxSmallTokens = 128;
// Blocks to have work for: one or two per multiprocessor of the device this was measured on.
// Constants, so that the same sizes give the same bits everywhere.
constexpr int64_t kSmallTargetBlocks = 256;
constexpr int64_t kLargeTargetBlocks = 128;
constexpr int64_t kMaxSlices = 32;

}  // namespace

RouterLogitsPlan plan_router_logits(int64_t num_tokens, int64_t hidden, int num_experts) {
  if (num_tokens <= kMaxGemvTokens && hidden % 4 == 0 && hidden <= kMaxGemvCols) {
    return {.token_tile = 0, .num_slices = 1, .slice_cols = hidden};
  }
  const bool is_small = num_tokens <= kMaxSmallTokens;
  const int64_t token_tile = is_small ? (num_tokens <= 16 ? 16 : 32) : kLargeTokens;
  const int64_t num_tiles =
      std::max<int64_t>(1, ceil_div(num_tokens, token_tile)) *
      ceil_div<int64_t>(num_experts, is_small ? kSmallExperts : kLargeExperts);
  // A slice is at least a step of the small tiles: shorter ones would take longer to add up.
  const int64_t num_slices =
      std::clamp<int64_t>((is_small ? kSmallTargetBlocks : kLargeTargetBlocks) / num_tiles, 1,
                          std::min(kMaxSlices, ceil_div<int64_t>(hidden, kSmallCols)));
  const int64_t slice_cols =
      ceil_div<int64_t>(ceil_div(hidden, num_slices), kSmallCols) * kSmallCols;
  return {.token_tile = static_cast<int>(token_tile),
          .num_slices = static_cast<int>(ceil_div(hidden, slice_cols)),
          .slice_cols = slice_cols};
}

void router_logits(const RouterArgs& args,
                   const RouterLogitsPlan& plan,
                   float* partial,
                   int32_t* ticket,
                   cudaStream_t stream) {
  const int64_t hidden = args.x.num_cols;
  if (plan.token_tile == 0) {
    const Launch how = {.grid = dim3(static_cast<unsigned>(args.num_experts)),
                        .block = dim3(kGemvThreads)};
    const bool is_narrow = hidden <= kMaxGemvCols / 2;
    if (args.x.num_rows == 1) {
      launch(is_narrow ? gemv_kernel<2, 1> : gemv_kernel<4, 1>, how, stream, args, partial, ticket);
    } else {
      launch(is_narrow ? gemv_kernel<2, kMaxGemvTokens> : gemv_kernel<4, kMaxGemvTokens>, how,
             stream, args, partial, ticket);
    }
    return;
  }
  const bool is_wide = hidden % 4 == 0;
  const auto grid = [&](int64_t expert_tile) {
    return dim3(static_cast<unsigned>(ceil_div<int64_t>(args.x.num_rows, plan.token_tile)),
                static_cast<unsigned>(ceil_div<int64_t>(args.num_experts, expert_tile)),
                static_cast<unsigned>(plan.num_slices));
  };
  if (plan.token_tile < kLargeTokens) {
    launch(plan.token_tile == 16 ? small_split_product_kernel<16> : small_split_product_kernel<32>,
           {.grid = grid(kSmallExperts), .block = dim3(kSmallThreads)}, stream, args, plan, is_wide,
           partial, ticket);
  } else {
    launch(split_product_kernel<kLargeTokens, kLargeExperts, 2, 4>,
           {.grid = grid(kLargeExperts), .block = dim3(256)}, stream, args, plan, is_wide, partial);
  }
}

}  // namespace augur::cuda
