#include "kernels/cuda/moe_portable.h"

#include <string>

#include "kernels/cuda/gated_mlp.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda {
namespace {

constexpr int kThreads = 128;  // four warps, each with 16 of the strip's 64 weight rows
constexpr int kStages = 3;     // 72 KiB with gate and up: one block of an SM with 100 KiB
constexpr int kRowBytes = kTileCols * 2;
constexpr int kFewRows = 16;
constexpr int kManyRows = 64;

// What a block reads of tokens: rows of x or of h.
struct TokenRows {
  const __nv_bfloat16* data;
  int64_t stride;
  int num_cols;
  bool is_aligned;  // every eight columns from a multiple of 8 lie at a multiple of 16 bytes
};

// Copies 64 columns of kRows rows to shared memory in the layout of a weight tile. Rows whose
// index is -1 and columns past the end become zeros.
template <int kRows>
__device__ void load_tokens(std::byte* to,
                            const TokenRows& tokens,
                            const int32_t* row_indices,
                            int first_col) {
  for (int chunk = threadIdx.x; chunk < kRows * 8; chunk += kThreads) {
    const int row = chunk / 8;
    const int col = first_col + chunk % 8 * 8;
    std::byte* const place = to + row * kRowBytes + ((chunk % 8) ^ (row % 8)) * 16;
    const int32_t row_idx = row_indices[row];
    const __nv_bfloat16* const from = tokens.data + (row_idx < 0 ? 0 : row_idx * tokens.stride);
    if (tokens.is_aligned) {
      const bool is_valid = row_idx >= 0 && col < tokens.num_cols;
      copy_async_16(smem_address(place), is_valid ? from + col : tokens.data, is_valid);
    } else {
      auto* const values = reinterpret_cast<__nv_bfloat16*>(place);
      for (int i = 0; i < 8; ++i) {
        values[i] =
            row_idx >= 0 && col + i < tokens.num_cols ? from[col + i] : __float2bfloat16(0.0f);
      }
    }
  }
}

__device__ void load_tile(std::byte* to, const std::byte* from) {
  for (int offset = threadIdx.x * 16; offset < kTileBytes; offset += kThreads * 16) {
    copy_async_16(smem_address(to + offset), from + offset);
  }
}

// Fragments of 16 rows by 16 columns (columns 16 * step on) of a tile, rows from `row`: matrices
// in the order (rows 0-7, columns 0-7), then by rows or by columns first.
__device__ void load_fragments(
    uint32_t (&fragment)[4], uint32_t tile, int row, int step, bool is_rows_first) {
  const int lane = threadIdx.x % 32;
  const int matrix = lane / 8;
  const int row_half = is_rows_first ? matrix % 2 : matrix / 2;
  const int col_half = is_rows_first ? matrix / 2 : matrix % 2;
  const int chunk = (2 * step + col_half) ^ (lane % 8);
  load_matrix_x4(fragment, tile + (row + row_half * 8 + lane % 8) * kRowBytes + chunk * 16);
}

__device__ float silu(float value) {
  return value / (1.0f + __expf(-value));
}

// A block makes kRows rows of a plan's tile by one strip of 64 output columns: of h with
// kIsGateUp, of y otherwise. Grid: tiles, strips, blocks of rows within a tile.
template <int kRows, bool kIsGateUp>
__global__ void __launch_bounds__(kThreads)
    moe_portable_kernel(GatedMlp mlp, TokenRows tokens, int64_t h_stride) {
  constexpr int kMatrices = kIsGateUp ? 2 : 1;
  constexpr int kTokenBytes = kRows * kRowBytes;
  constexpr int kStageBytes = kTokenBytes + kMatrices * static_cast<int>(kTileBytes);
  constexpr int kRowBlocks = kRows / 16;
  extern __shared__ __align__(128) std::byte smem[];
  __shared__ int32_t row_indices[kRows];

  wait_for_previous_kernels();
  let_next_kernel_start();
  if (blockIdx.x >= mlp.num_tiles()) return;
  const MoeTile tile = mlp.tile(blockIdx.x);
  const int first = tile.first + blockIdx.z * kRows;
  const int num_rows = min(kRows, tile.first + tile.num_rows - first);
  if (num_rows <= 0) return;
  for (int row = threadIdx.x; row < kRows; row += kThreads) {
    const int position = first + row;
    row_indices[row] = row >= num_rows ? -1
                       : kIsGateUp     ? mlp.assignment(position) / mlp.top_k
                                       : position;
  }
  __syncthreads();

  const int num_k_tiles = static_cast<int>(num_tiles(tokens.num_cols));
  const int64_t strip_offset =
      tile.slot * mlp.slot_bytes + blockIdx.y * strip_bytes(tokens.num_cols);
  const std::byte* const strips[2] = {(kIsGateUp ? mlp.gate : mlp.down) + strip_offset,
                                      mlp.up + strip_offset};
  const auto load_stage = [&](int k_tile) {
    if (k_tile < num_k_tiles) {
      std::byte* const stage = smem + k_tile % kStages * kStageBytes;
      load_tokens<kRows>(stage, tokens, row_indices, k_tile * kTileCols);
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        load_tile(stage + kTokenBytes + m * kTileBytes, strips[m] + k_tile * kTileBytes);
      }
    }
    copy_async_commit();  // an empty group past the end keeps the count of groups
  };

  const int warp = threadIdx.x / 32;
  float sums[kMatrices][kRowBlocks][2][4] = {};
  for (int k_tile = 0; k_tile < kStages - 1; ++k_tile) load_stage(k_tile);
  for (int k_tile = 0; k_tile < num_k_tiles; ++k_tile) {
    copy_async_wait<kStages - 2>();
    __syncthreads();  // the tile is there for all, and the stage loaded next is no longer read
    load_stage(k_tile + kStages - 1);
    const uint32_t stage = smem_address(smem + k_tile % kStages * kStageBytes);
#pragma unroll
    for (int step = 0; step < kTileCols / 16; ++step) {
      uint32_t weights[kMatrices][4];
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        load_fragments(weights[m], stage + kTokenBytes + m * static_cast<int>(kTileBytes),
                       warp * 16, step, /*is_rows_first=*/false);
      }
#pragma unroll
      for (int block = 0; block < kRowBlocks; ++block) {
        uint32_t rows[4];
        load_fragments(rows, stage, block * 16, step, /*is_rows_first=*/true);
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
          mma_16x8x16(sums[m][block][0], rows, weights[m][0], weights[m][1]);
          mma_16x8x16(sums[m][block][1], rows, weights[m][2], weights[m][3]);
        }
      }
    }
  }

  // A lane holds two neighbouring columns of rows lane / 4 and that + 8 of every fragment.
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int block = 0; block < kRowBlocks; ++block) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = block * 16 + half * 8 + lane / 4;
      if (row >= num_rows) continue;
      __nv_bfloat16* const out = kIsGateUp
                                     ? mlp.h + (first + row) * h_stride
                                     : mlp.y + int64_t{mlp.assignment(first + row)} * mlp.y_stride;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int col = blockIdx.y * kTileRows + warp * 16 + n * 8 + lane % 4 * 2;
        float low = sums[0][block][n][2 * half];
        float high = sums[0][block][n][2 * half + 1];
        if constexpr (kIsGateUp) {
          low = silu(low) * sums[1][block][n][2 * half];
          high = silu(high) * sums[1][block][n][2 * half + 1];
        }
        *reinterpret_cast<uint32_t*>(out + col) = pack_bf16(low, high);
      }
    }
  }
}

template <int kRows, bool kIsGateUp>
void launch_portable(const GatedMlp& mlp,
                     const TokenRows& tokens,
                     int64_t num_outputs,
                     int64_t h_stride,
                     cudaStream_t stream) {
  constexpr int64_t kSmemBytes = kStages * (kRows * kRowBytes + (kIsGateUp ? 2 : 1) * kTileBytes);
  const auto kernel = moe_portable_kernel<kRows, kIsGateUp>;
  allow_smem(kernel, kSmemBytes);
  const dim3 grid(static_cast<unsigned>(mlp.num_tiles_bound),
                  static_cast<unsigned>(num_tiles(num_outputs)),
                  static_cast<unsigned>(ceil_div(mlp.plan.tile_rows, kRows)));
  launch(kernel, {.grid = grid, .block = dim3(kThreads), .smem_bytes = kSmemBytes}, stream, mlp,
         tokens, h_stride);
}

// Gate and up, then down, of every planned row; y is the workspace's part after h.
GatedMlp run_portable(GatedMlp mlp, std::byte* workspace, cudaStream_t stream) {
  const int64_t h_stride = round_up(mlp.intermediate, kTileCols);
  mlp.h = reinterpret_cast<__nv_bfloat16*>(workspace);
  mlp.y = mlp.h + round_up(mlp.num_assignments * h_stride, 128);
  const bool is_aligned =
      reinterpret_cast<uintptr_t>(mlp.x) % 16 == 0 && mlp.x_stride % 8 == 0 && mlp.hidden % 8 == 0;
  const TokenRows x = {mlp.x, mlp.x_stride, mlp.hidden, is_aligned};
  const TokenRows h = {mlp.h, h_stride, static_cast<int>(h_stride), true};
  if (mlp.plan.tile_rows <= kFewRows) {
    launch_portable<kFewRows, true>(mlp, x, mlp.intermediate, h_stride, stream);
    launch_portable<kFewRows, false>(mlp, h, mlp.hidden, h_stride, stream);
  } else {
    launch_portable<kManyRows, true>(mlp, x, mlp.intermediate, h_stride, stream);
    launch_portable<kManyRows, false>(mlp, h, mlp.hidden, h_stride, stream);
  }
  return mlp;
}

}  // namespace

int moe_portable_tile_rows(int64_t num_tokens, int top_k, int num_experts) {
  return num_tokens * top_k <= int64_t{kFewRows} * num_experts ? kFewRows : kManyRows;
}

int64_t moe_portable_workspace_bytes(int64_t num_tokens,
                                     int top_k,
                                     int64_t hidden_size,
                                     int64_t intermediate_size) {
  const int64_t num_rows = num_tokens * top_k;
  return round_up(num_rows * round_up(intermediate_size, kTileCols) * 2, 256) +
         num_rows * round_up(hidden_size, kTileCols) * 2;
}

void moe_portable(const MoePrefillArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("moe_portable");
  const MoeArgs& moe = args.moe;
  if (moe.x.num_rows == 0) return;
  const GatedMlp mlp = run_portable(gated_mlp(args), args.workspace, stream);
  moe_combine({.y = {mlp.y, DType::kBF16, mlp.num_assignments, mlp.hidden, mlp.y_stride},
               .experts = moe.experts,
               .weights = moe.weights,
               .top_k = moe.top_k,
               .shared = args.shared_out,
               .out = moe.out},
              stream);
}

void mlp_portable(const MlpPrefillArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("mlp_portable");
  const int64_t num_tokens = args.mlp.x.num_rows;
  if (num_tokens == 0) return;
  const int tile_rows = moe_portable_tile_rows(num_tokens, /*top_k=*/1, /*num_experts=*/1);
  const GatedMlp mlp = run_portable(gated_mlp(args, tile_rows), args.workspace, stream);
  MoeCombineArgs combine;
  combine.y = {mlp.y, DType::kBF16, num_tokens, mlp.hidden, mlp.y_stride};
  combine.out = args.mlp.out;
  moe_combine(combine, stream);
}

}  // namespace augur::cuda
