// CUDA calls that cannot fail silently.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace augur::cuda {

/// A CUDA or cuBLASLt call failed. Most such errors stick: the process cannot go on with the
/// device.
class CudaError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] void throw_cuda_error(cudaError_t error, const char* call, const char* file, int line);

/// Says on stderr that a call in a destructor failed, unless the driver is shutting down.
void report_cuda_failure(cudaError_t error, const char* what) noexcept;

}  // namespace augur::cuda

/// Throws CudaError with the call, where it stands and the error's name.
#define AUGUR_CUDA(call)                                                       \
  do {                                                                         \
    const cudaError_t augur_error = (call);                                    \
    if (augur_error != cudaSuccess) {                                          \
      ::augur::cuda::throw_cuda_error(augur_error, #call, __FILE__, __LINE__); \
    }                                                                          \
  } while (false)
