#include "kernels/cuda/pack.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/mlp_layout.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kThreads = 256;

// One thread per 16-byte chunk of the packed rows.
__global__ void pack_tiled_kernel(
    std::byte* to, int64_t num_cols, int64_t first_row, int64_t count, const uint16_t* rows) {
  wait_for_previous_kernels();
  const int64_t chunks_per_row = num_tiles(num_cols) * (kTileCols / 8);
  const int64_t chunk = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (chunk >= count * chunks_per_row) return;
  const int64_t row = chunk / chunks_per_row;
  const int64_t col = chunk % chunks_per_row * 8;
  const uint16_t* const from = rows + row * num_cols + col;
  alignas(16) uint16_t values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = col + i < num_cols ? from[i] : uint16_t{0};
  *reinterpret_cast<uint4*>(to + tiled_offset(first_row + row, col, num_cols)) =
      *reinterpret_cast<const uint4*>(values);
}

// The finaliser of SplitMix64 (Steele, Lea and Flood 2014).
__device__ uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// One thread makes values from each 64 bits: four of them.
__global__ void fill_random_kernel(__nv_bfloat16* to,
                                   int64_t num_values,
                                   float amplitude,
                                   uint64_t seed) {
  wait_for_previous_kernels();
  const int64_t stride = int64_t{gridDim.x} * kThreads * 4;
  for (int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 4; i < num_values;
       i += stride) {
    const uint64_t bits = mix(seed + static_cast<uint64_t>(i) * 0x9E3779B97F4A7C15u);
    for (int j = 0; j < 4 && i + j < num_values; ++j) {
      const auto part = static_cast<float>((bits >> (16 * j)) & 0xFFFF);
      to[i + j] = __float2bfloat16((part / 32767.5f - 1.0f) * amplitude);
    }
  }
}

}  // namespace

void pack_tiled(std::byte* to,
                int64_t num_rows,
                int64_t num_cols,
                int64_t first_row,
                int64_t count,
                const Bf16* rows,
                cudaStream_t stream) {
  AUGUR_NVTX_RANGE("pack_tiled");
  AUGUR_REQUIRE(first_row >= 0 && count >= 0 && first_row + count <= num_rows,
                "rows " + std::to_string(first_row) + " and " + std::to_string(count) +
                    " more of " + std::to_string(num_rows));
  const int64_t num_chunks = count * num_tiles(num_cols) * (kTileCols / 8);
  if (num_chunks == 0) return;
  launch(pack_tiled_kernel,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(num_chunks, kThreads))),
          .block = dim3(kThreads)},
         stream, to, num_cols, first_row, count, reinterpret_cast<const uint16_t*>(rows));
}

void fill_random(
    std::byte* to, int64_t num_bytes, float amplitude, uint64_t seed, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("fill_random");
  AUGUR_REQUIRE(num_bytes % 2 == 0, std::to_string(num_bytes));
  const int64_t num_values = num_bytes / 2;
  if (num_values == 0) return;
  const int64_t num_blocks =
      std::min<int64_t>(ceil_div<int64_t>(num_values, kThreads * 4), 1 << 16);
  launch(fill_random_kernel,
         {.grid = dim3(static_cast<unsigned>(num_blocks)), .block = dim3(kThreads)}, stream,
         reinterpret_cast<__nv_bfloat16*>(to), num_values, amplitude, seed);
}

}  // namespace augur::cuda
