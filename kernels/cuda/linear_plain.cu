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
constexpr int kBiasThreads = 256;

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
  // The grid's y is limited to 65,535: blocks go on to the rows below.
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

__global__ void add_bias_kernel(Tensor out, const float* bias) {
  let_next_kernel_start();
  const int64_t col = int64_t{blockIdx.x} * kBiasThreads + threadIdx.x;
  if (col >= out.num_cols) return;
  const float add = bias[col];
  wait_for_previous_kernels();
  const bool is_f32 = out.dtype == DType::kF32;
  for (int64_t row = blockIdx.y; row < out.num_rows; row += gridDim.y) {
    const int64_t index = row * out.row_stride + col;
    const float value = is_f32 ? static_cast<const float*>(out.data)[index]
                               : __bfloat162float(static_cast<__nv_bfloat16*>(out.data)[index]);
    store(out.data, is_f32, index, value + add);
  }
}

unsigned grid_rows(int64_t count) {
  return static_cast<unsigned>(std::min<int64_t>(count, 65'535));
}

}  // namespace

void linear_plain(const LinearArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("linear_plain");
  check_linear(args);
  if (args.out.num_rows == 0 || args.out.num_cols == 0) return;
  launch(linear_plain_kernel,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(args.out.num_cols, kTile)),
                       grid_rows(ceil_div<int64_t>(args.out.num_rows, kTile))),
          .block = dim3(kTile, kTile)},
         stream, args);
}

void add_bias(const Tensor& out, const float* bias, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("add_bias");
  if (out.num_rows == 0 || out.num_cols == 0) return;
  launch(add_bias_kernel,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(out.num_cols, kBiasThreads)),
                       grid_rows(out.num_rows)),
          .block = dim3(kBiasThreads)},
         stream, out, bias);
}

}  // namespace augur::cuda
