#include "kernels/cuda/moe_combine.h"

#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColsPerThread = 8;  // 16 bytes of y
constexpr int kRowsInFlight = 4;   // 64 bytes a thread: enough to hide memory at full occupancy

// Adds weight * values to sums.
__device__ void add_scaled(float (&sums)[kColsPerThread], float weight, const uint4& values) {
  const uint32_t words[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    sums[2 * i] += weight * __uint_as_float(words[i] << 16);
    sums[2 * i + 1] += weight * __uint_as_float(words[i] & 0xFFFF0000u);
  }
}

template <typename T>
__device__ T* row_of(const Tensor& tensor, int64_t row_idx) {
  return static_cast<T*>(tensor.data) + row_idx * tensor.row_stride;
}

// Whether eight columns from a multiple of 8 lie at a multiple of 16 bytes in every row.
bool has_aligned_rows(const Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.data) % 16 == 0 && tensor.row_stride % 8 == 0;
}

// One thread makes eight columns of one token.
__global__ void __launch_bounds__(kThreads)
    moe_combine_kernel(MoeCombineArgs args, int chunks_per_row, bool is_aligned) {
  wait_for_previous_kernels();
  let_next_kernel_start();
  const int64_t task = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const int64_t token = task / chunks_per_row;
  if (token >= args.out.num_rows) return;
  const int64_t col = task % chunks_per_row * kColsPerThread;
  float sums[kColsPerThread] = {};

  // The chosen rows, a few loads ahead of the sum.
  for (int first = 0; first < args.top_k; first += kRowsInFlight) {
    uint4 values[kRowsInFlight];
    float weights[kRowsInFlight];
#pragma unroll
    for (int i = 0; i < kRowsInFlight; ++i) {
      const int64_t assignment = token * args.top_k + first + i;
      const bool is_used = first + i < args.top_k &&
                           (args.experts == nullptr || __ldg(args.experts + assignment) >= 0);
      values[i] = is_used ? load_streaming(row_of<uint16_t>(args.y, assignment) + col) : uint4{};
      weights[i] =
          is_used ? (args.weights == nullptr ? 1.0f : __ldg(args.weights + assignment)) : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kRowsInFlight; ++i) add_scaled(sums, weights[i], values[i]);
  }

  const int num_cols = static_cast<int>(min(int64_t{kColsPerThread}, args.out.num_cols - col));
  const bool is_whole = is_aligned && num_cols == kColsPerThread;
  if (args.shared.data != nullptr) {
    if (is_whole && args.shared.dtype == DType::kBF16) {
      add_scaled(sums, 1.0f, load_streaming(row_of<uint16_t>(args.shared, token) + col));
    } else {
      for (int i = 0; i < kColsPerThread; ++i) {
        if (i >= num_cols) break;
        sums[i] += args.shared.dtype == DType::kBF16
                       ? __bfloat162float(row_of<__nv_bfloat16>(args.shared, token)[col + i])
                       : row_of<float>(args.shared, token)[col + i];
      }
    }
  }

  if (args.out.dtype == DType::kBF16) {
    __nv_bfloat16* const out = row_of<__nv_bfloat16>(args.out, token) + col;
    if (is_whole) {
      *reinterpret_cast<uint4*>(out) = {pack_bf16(sums[0], sums[1]), pack_bf16(sums[2], sums[3]),
                                        pack_bf16(sums[4], sums[5]), pack_bf16(sums[6], sums[7])};
    } else {
      for (int i = 0; i < kColsPerThread; ++i) {
        if (i < num_cols) out[i] = __float2bfloat16(sums[i]);
      }
    }
  } else {
    float* const out = row_of<float>(args.out, token) + col;
    if (is_whole) {
      reinterpret_cast<float4*>(out)[0] = {sums[0], sums[1], sums[2], sums[3]};
      reinterpret_cast<float4*>(out)[1] = {sums[4], sums[5], sums[6], sums[7]};
    } else {
      for (int i = 0; i < kColsPerThread; ++i) {
        if (i < num_cols) out[i] = sums[i];
      }
    }
  }
}

}  // namespace

void moe_combine(const MoeCombineArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("moe_combine");
  AUGUR_REQUIRE(args.y.dtype == DType::kBF16 && has_aligned_rows(args.y),
                "row stride " + std::to_string(args.y.row_stride));
  if (args.out.num_rows == 0) return;
  const int64_t chunks_per_row = ceil_div<int64_t>(args.out.num_cols, kColsPerThread);
  const int64_t num_blocks = ceil_div<int64_t>(args.out.num_rows * chunks_per_row, kThreads);
  const bool is_aligned =
      has_aligned_rows(args.out) && (args.shared.data == nullptr || has_aligned_rows(args.shared));
  launch(moe_combine_kernel,
         {.grid = dim3(static_cast<unsigned>(num_blocks)), .block = dim3(kThreads)}, stream, args,
         static_cast<int>(chunks_per_row), is_aligned);
}

int64_t bytes_moved(const MoeCombineArgs& args) {
  const int64_t row_bytes =
      args.y.num_cols * 2 * args.top_k + args.out.num_cols * dtype_bytes(args.out.dtype) +
      (args.shared.data == nullptr ? 0 : args.shared.num_cols * dtype_bytes(args.shared.dtype)) +
      8 * args.top_k;
  return args.out.num_rows * row_bytes;
}

}  // namespace augur::cuda
