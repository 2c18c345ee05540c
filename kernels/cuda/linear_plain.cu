#include "kernels/cuda/linear_plain.h"

#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda {
namespace {

// A block computes kTile x kTile outputs, one per thread, over tiles of kDepth columns.
constexpr int kTile = 16;
constexpr int kDepth = 32;
constexpr int64_t kMaxGridRows = 65'535;  // CUDA's limit of a grid's y

__device__ void store(void* out, bool is_f32, int64_t index, float value) {
  if (is_f32) {
    static_cast<float*>(out)[index] = value;
  } else {
    static_cast<__nv_bfloat16*>(out)[index] = __float2bfloat16(value);
  }
}

// Rows [first, first + kTile) and columns [col, col + kDepth) of a matrix, zeros outside.
__device__ void load_tile(float (&tile)[kTile][kDepth + 1],
                          const __nv_bfloat16* matrix,
                          int64_t row_stride,
                          int64_t num_rows,
                          int64_t num_cols,
                          int64_t first,
                          int64_t col) {
  for (int i = threadIdx.y * kTile + threadIdx.x; i < kTile * kDepth; i += kTile * kTile) {
    const int64_t row = first + i / kDepth;
    const int64_t from = col + i % kDepth;
    tile[i / kDepth][i % kDepth] = row < num_rows && from < num_cols
                                       ? __bfloat162float(matrix[row * row_stride + from])
                                       : 0.0f;
  }
}

__global__ void linear_plain_kernel(LinearArgs args) {
  __shared__ float x_tile[kTile][kDepth + 1];
  __shared__ float weight_tile[kTile][kDepth + 1];
  let_next_kernel_start();
  wait_for_previous_kernels();
  const auto* const x = static_cast<const __nv_bfloat16*>(args.x.data);
  const auto* const weight = reinterpret_cast<const __nv_bfloat16*>(args.weight.data);
  const int64_t num_cols = args.x.num_cols;
  const int64_t num_outputs = args.weight.num_rows;
  const int64_t first_output = int64_t{blockIdx.x} * kTile;
  const int64_t output = first_output + threadIdx.x;
  // Where the grid is not tall enough, blocks go on to the rows below.
  for (int64_t first = int64_t{blockIdx.y} * kTile; first < args.x.num_rows;
       first += int64_t{gridDim.y} * kTile) {
    float sum = 0;
    for (int64_t col = 0; col < num_cols; col += kDepth) {
      load_tile(x_tile, x, args.x.row_stride, args.x.num_rows, num_cols, first, col);
      load_tile(weight_tile, weight, num_cols, num_outputs, num_cols, first_output, col);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kDepth; ++i) {
        sum = fmaf(x_tile[threadIdx.y][i], weight_tile[threadIdx.x][i], sum);
      }
      __syncthreads();
    }
    const int64_t row = first + threadIdx.y;
    if (row < args.x.num_rows && output < num_outputs) {
      if (args.bias != nullptr) sum += args.bias[output];
      store(args.out.data, args.out.dtype == DType::kF32, row * args.out.row_stride + output, sum);
    }
  }
}

}  // namespace

void linear_plain(const LinearArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("linear_plain");
  check_linear(args);
  if (args.out.num_rows == 0 || args.out.num_cols == 0) return;
  launch(linear_plain_kernel,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(args.out.num_cols, kTile)),
                       static_cast<unsigned>(std::min<int64_t>(
                           ceil_div<int64_t>(args.out.num_rows, kTile), kMaxGridRows))),
          .block = dim3(kTile, kTile)},
         stream, args);
}

}  // namespace augur::cuda
