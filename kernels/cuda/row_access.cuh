// A few values of a row at a time as floats, and sums over a warp.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"
#include "kernels/tensor.h"

namespace augur::cuda {

/// Tensor::row, on the device.
template <typename T>
__device__ __forceinline__ T* row_of(const Tensor& tensor, int64_t row_idx) {
  return static_cast<T*>(tensor.data) + row_idx * tensor.row_stride;
}

/// Four or eight consecutive values, aligned as one access of up to 16 bytes needs.
template <int kCount>
__device__ __forceinline__ void load_values(const float* from, float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
  }
}
template <int kCount>
__device__ __forceinline__ void load_values(const __nv_bfloat16* from, float (&values)[kCount]) {
  uint32_t pairs[kCount / 2];
  if constexpr (kCount == 8) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    pairs[0] = raw.x, pairs[1] = raw.y, pairs[2] = raw.z, pairs[3] = raw.w;
  } else {
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    pairs[0] = raw.x, pairs[1] = raw.y;
  }
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) {
    values[2 * i] = __uint_as_float(pairs[i] << 16);
    values[2 * i + 1] = __uint_as_float(pairs[i] & 0xFFFF0000u);
  }
}
template <int kCount>
__device__ __forceinline__ void store_values(float* to, const float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    *reinterpret_cast<float4*>(to + i) =
        make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
  }
}
template <int kCount>
__device__ __forceinline__ void store_values(__nv_bfloat16* to, const float (&values)[kCount]) {
  uint32_t pairs[kCount / 2];
#pragma unroll
  for (int i = 0; i < kCount / 2; ++i) pairs[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
  if constexpr (kCount == 8) {
    *reinterpret_cast<uint4*>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  } else {
    *reinterpret_cast<uint2*>(to) = make_uint2(pairs[0], pairs[1]);
  }
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
