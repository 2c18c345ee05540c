// Owners of CUDA's handles and memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <utility>

#include "kernels/buffer.h"
#include "kernels/cuda/check.h"

namespace augur::cuda {

/// Move-only owner of one CUDA handle. A failed destroy is reported, not thrown: it may run during
/// unwinding, or after the driver has begun to shut down.
template <typename Handle, cudaError_t (*Destroy)(Handle)>
class UniqueHandle {
 public:
  explicit UniqueHandle(Handle handle = nullptr) noexcept : handle_(handle) {}
  ~UniqueHandle() {
    if (handle_ != nullptr) report_cuda_failure(Destroy(handle_), "destroying a CUDA handle");
  }
  UniqueHandle(UniqueHandle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Handle get() const noexcept { return handle_; }

 private:
  Handle handle_;
};

using Stream = UniqueHandle<cudaStream_t, cudaStreamDestroy>;
using Event = UniqueHandle<cudaEvent_t, cudaEventDestroy>;
using Graph = UniqueHandle<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = UniqueHandle<cudaGraphExec_t, cudaGraphExecDestroy>;

Stream make_stream();
Event make_event();        // with time
Event make_order_event();  // without: only for order, cheaper

/// `num_bytes` of device memory, not cleared, 256-byte aligned. Throws OutOfMemory with the bytes
/// asked for and the bytes free. Zero bytes make an empty buffer.
Buffer allocate_device(int64_t num_bytes);
/// Page-locked host memory, which copies to and from the device run beside the host's work.
Buffer allocate_pinned(int64_t num_bytes);

}  // namespace augur::cuda
