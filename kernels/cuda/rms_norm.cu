#include "kernels/cuda/rms_norm.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_access.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;
constexpr int kMaxThreads = 1024;
constexpr int kMaxWarps = kMaxThreads / kWarpLanes;
constexpr int kPlainThreads = 256;

// The sum over the block, the same bits in every thread. `sums` is not used by another sum until
// the block has synchronised again.
__device__ __forceinline__ float block_sum(float value, float (&sums)[kMaxWarps]) {
  value = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  const int lane = threadIdx.x % kWarpLanes;
  return warp_sum(lane < static_cast<int>(blockDim.x) / kWarpLanes ? sums[lane] : 0.0f);
}

template <int kWidth>
__device__ __forceinline__ void load_row_part(const Tensor& tensor,
                                              int64_t row,
                                              int64_t col,
                                              float (&values)[kWidth]) {
  if (tensor.dtype == DType::kBF16) {
    load_values(row_of<const __nv_bfloat16>(tensor, row) + col, values);
  } else {
    load_values(row_of<const float>(tensor, row) + col, values);
  }
}
template <int kWidth>
__device__ __forceinline__ void store_row_part(const Tensor& tensor,
                                               int64_t row,
                                               int64_t col,
                                               const float (&values)[kWidth]) {
  if (tensor.dtype == DType::kBF16) {
    store_values(row_of<__nv_bfloat16>(tensor, row) + col, values);
  } else {
    store_values(row_of<float>(tensor, row) + col, values);
  }
}

// A block per row at a time. Thread i of n holds columns [i w, i w + w), w being kWidth, and those
// n w further on, kChunks times.
template <int kWidth, int kChunks>
__global__ void __launch_bounds__(kMaxThreads) add_rms_norm_kernel(AddRmsNormArgs args) {
  __shared__ float sums[2][kMaxWarps];
  const int num_cols = static_cast<int>(args.hidden.num_cols);
  const auto col_of = [&](int chunk) {
    return (chunk * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kWidth;
  };
  float weight[kChunks][kWidth];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (col_of(c) < num_cols) load_values(args.weight + col_of(c), weight[c]);
  }
  const float inverse_cols = 1.0f / static_cast<float>(num_cols);
  let_next_kernel_start();
  wait_for_previous_kernels();

  int parity = 0;
  for (int64_t row = blockIdx.x; row < args.hidden.num_rows; row += gridDim.x, parity ^= 1) {
    float x[kChunks][kWidth];
    float sum_of_squares = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int col = col_of(c);
      if (col >= num_cols) continue;
      float* const hidden = row_of<float>(args.hidden, row) + col;
      load_values(hidden, x[c]);
      if (args.delta.data != nullptr) {
        float delta[kWidth];
        load_row_part(args.delta, row, col, delta);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) x[c][i] += delta[i];
        store_values(hidden, x[c]);
      }
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum_of_squares += x[c][i] * x[c][i];
    }
    const float scale = rsqrtf(block_sum(sum_of_squares, sums[parity]) * inverse_cols + args.eps);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int col = col_of(c);
      if (col >= num_cols) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) x[c][i] *= scale * weight[c][i];
      store_row_part(args.out, row, col, x[c]);
      if (args.out_f32.data != nullptr) store_values(row_of<float>(args.out_f32, row) + col, x[c]);
    }
  }
}

// Any size and alignment; a block per row, which reads hidden again for the second pass.
__global__ void __launch_bounds__(kPlainThreads) plain_add_rms_norm_kernel(AddRmsNormArgs args) {
  __shared__ float sums[kMaxWarps];
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t row = blockIdx.x;
  float* const hidden = row_of<float>(args.hidden, row);
  const bool delta_is_bf16 = args.delta.dtype == DType::kBF16;
  float sum_of_squares = 0;
  for (int64_t col = threadIdx.x; col < args.hidden.num_cols; col += kPlainThreads) {
    float x = hidden[col];
    if (args.delta.data != nullptr) {
      x += delta_is_bf16 ? __bfloat162float(row_of<__nv_bfloat16>(args.delta, row)[col])
                         : row_of<float>(args.delta, row)[col];
      hidden[col] = x;
    }
    sum_of_squares += x * x;
  }
  const float scale =
      rsqrtf(block_sum(sum_of_squares, sums) / static_cast<float>(args.hidden.num_cols) + args.eps);
  for (int64_t col = threadIdx.x; col < args.hidden.num_cols; col += kPlainThreads) {
    const float x = hidden[col] * (scale * args.weight[col]);
    if (args.out.dtype == DType::kBF16) {
      row_of<__nv_bfloat16>(args.out, row)[col] = __float2bfloat16(x);
    } else {
      row_of<float>(args.out, row)[col] = x;
    }
    if (args.out_f32.data != nullptr) row_of<float>(args.out_f32, row)[col] = x;
  }
}

bool is_wide(const Tensor& tensor) {
  return tensor.data == nullptr ||
         has_aligned_rows(tensor.data, tensor.row_stride * dtype_bytes(tensor.dtype));
}

template <int kWidth, int kChunks>
void launch_wide(const AddRmsNormArgs& args, cudaStream_t stream) {
  const int64_t num_threads =
      ceil_div<int64_t>(ceil_div<int64_t>(args.hidden.num_cols, kWidth * kChunks), kWarpLanes) *
      kWarpLanes;
  // As many blocks as are resident at once; each keeps the weights for its further rows.
  const int64_t num_resident = device_traits().num_sms * (kMaxThreads / num_threads);
  launch(add_rms_norm_kernel<kWidth, kChunks>,
         {.grid = dim3(static_cast<unsigned>(std::min(args.hidden.num_rows, num_resident))),
          .block = dim3(static_cast<unsigned>(num_threads))},
         stream, args);
}

}  // namespace

void add_rms_norm(const AddRmsNormArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("add_rms_norm");
  const int64_t num_rows = args.hidden.num_rows;
  const int64_t num_cols = args.hidden.num_cols;
  const auto has_shape = [&](const Tensor& tensor) {
    return tensor.data == nullptr || (tensor.num_rows == num_rows && tensor.num_cols == num_cols);
  };
  AUGUR_REQUIRE(args.hidden.dtype == DType::kF32 && args.out_f32.dtype == DType::kF32 &&
                    has_shape(args.delta) && has_shape(args.out) && has_shape(args.out_f32),
                std::to_string(num_rows) + " x " + std::to_string(num_cols));
  if (num_rows == 0 || num_cols == 0) return;
  const bool wide = num_cols % 8 == 0 && is_wide(args.hidden) && is_wide(args.delta) &&
                    is_wide(args.out) && is_wide(args.out_f32) && has_aligned_rows(args.weight, 0);
  if (wide && num_cols <= kMaxThreads * 4 && num_rows <= device_traits().num_sms) {
    launch_wide<4, 1>(args, stream);  // a row's time is that of a thread: as many as there can be
  } else if (wide && num_cols <= kMaxThreads * 8) {
    launch_wide<8, 1>(args, stream);
  } else if (wide && num_cols <= kMaxThreads * 16) {
    launch_wide<8, 2>(args, stream);
  } else {
    launch(plain_add_rms_norm_kernel,
           {.grid = dim3(static_cast<unsigned>(num_rows)), .block = dim3(kPlainThreads)}, stream,
           args);
  }
}

int64_t bytes_moved(const AddRmsNormArgs& args) {
  int64_t value_bytes = 4 + dtype_bytes(args.out.dtype);
  if (args.delta.data != nullptr) value_bytes += 4 + dtype_bytes(args.delta.dtype);
  if (args.out_f32.data != nullptr) value_bytes += 4;
  return args.hidden.num_cols * (args.hidden.num_rows * value_bytes + 4);
}

}  // namespace augur::cuda
