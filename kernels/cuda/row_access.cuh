// Eight values of a row at a time as floats, and sums over a warp.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace augur::cuda {

/// Tensor::row, on the device.
template <typename T>
__device__ __forceinline__ T* row_of(const Tensor& tensor, int64_t row_idx) {
  return static_cast<T*>(tensor.data) + row_idx * tensor.row_stride;
}

/// Eight consecutive values, 16-byte aligned.
__device__ __forceinline__ void load_8(const float* from, float (&values)[8]) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
  values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
}
__device__ __forceinline__ void load_8(const __nv_bfloat16* from, float (&values)[8]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const uint32_t pairs[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(pairs[i] << 16);
    values[2 * i + 1] = __uint_as_float(pairs[i] & 0xFFFF0000u);
  }
}
__device__ __forceinline__ void store_8(float* to, const float (&values)[8]) {
  reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
  reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
}
__device__ __forceinline__ void store_8(__nv_bfloat16* to, const float (&values)[8]) {
  __nv_bfloat162 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pairs);
}

/// The sum over the 32 lanes, the same bits in each.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFu, value, distance);
  }
  return value;
}

/// Whether rows that start at `data` and follow at row_stride_bytes can be read 16 bytes at a time.
inline bool has_aligned_rows(const void* data, int64_t row_stride_bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && row_stride_bytes % 16 == 0;
}

}  // namespace augur::cuda
