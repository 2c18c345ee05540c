#include "kernels/cuda/handles.h"

#include <string>

#include "kernels/ops.h"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

void free_device(void* data, int64_t) noexcept {
  report_cuda_failure(cudaFree(data), "freeing device memory");
}

void free_pinned(void* data, int64_t) noexcept {
  report_cuda_failure(cudaFreeHost(data), "freeing page-locked memory");
}

}  // namespace

Stream make_stream() {
  cudaStream_t stream = nullptr;
  AUGUR_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return Stream(stream);
}

Event make_event() {
  cudaEvent_t event = nullptr;
  AUGUR_CUDA(cudaEventCreate(&event));
  return Event(event);
}

Event make_order_event() {
  cudaEvent_t event = nullptr;
  AUGUR_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return Event(event);
}

Buffer allocate_device(int64_t num_bytes) {
  AUGUR_REQUIRE(num_bytes >= 0, std::to_string(num_bytes));
  if (num_bytes == 0) return {};
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, static_cast<size_t>(num_bytes));
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    AUGUR_CUDA(cudaMemGetInfo(&free_bytes, &total_bytes));
    throw OutOfMemory("out of device memory: " + std::to_string(num_bytes) + " bytes asked for, " +
                      std::to_string(free_bytes) + " of " + std::to_string(total_bytes) + " free");
  }
  AUGUR_CUDA(error);
  return {data, num_bytes, free_device};
}

Buffer allocate_pinned(int64_t num_bytes) {
  AUGUR_REQUIRE(num_bytes >= 0, std::to_string(num_bytes));
  if (num_bytes == 0) return {};
  void* data = nullptr;
  const cudaError_t error = cudaMallocHost(&data, static_cast<size_t>(num_bytes));
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    throw OutOfMemory("out of page-locked host memory: " + std::to_string(num_bytes) +
                      " bytes asked for");
  }
  AUGUR_CUDA(error);
  return {data, num_bytes, free_pinned};
}

}  // namespace augur::cuda
