#include "kernels/cuda/sm90_prefetch.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

// One instruction each; 16.8 MB are 2,050 of them.
constexpr int64_t kChunkBytes = 8192;
constexpr int kThreads = 32;

__global__ void prefetch_l2_kernel(const std::byte* from, int64_t num_bytes) {
  const int64_t offset = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kChunkBytes;
  if (offset >= num_bytes) return;
  const int64_t left = num_bytes - offset;
  const auto count = static_cast<uint32_t>(left < kChunkBytes ? left : kChunkBytes);
  asm volatile(
      "cp.async.bulk.prefetch.L2.global.L2::cache_hint [%0], %1, %2;\n" ::"l"(from + offset),
      "r"(count), "l"(kEvictLast)
      : "memory");
}

}  // namespace

void sm90_prefetch_l2(const void* from, int64_t num_bytes, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("prefetch_l2");
  AUGUR_REQUIRE(num_bytes % 16 == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0,
                std::to_string(num_bytes));
  if (num_bytes == 0) return;
  const int64_t num_blocks = ceil_div(num_bytes, kThreads * kChunkBytes);
  prefetch_l2_kernel<<<static_cast<unsigned>(num_blocks), kThreads, 0, stream>>>(
      static_cast<const std::byte*>(from), num_bytes);
  AUGUR_CUDA(cudaGetLastError());
}

}  // namespace augur::cuda
