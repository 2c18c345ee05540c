#include "kernels/cuda/check.h"

#include <cstdio>

namespace augur::cuda {

void throw_cuda_error(cudaError_t error, const char* call, const char* file, int line) {
  throw CudaError(std::string(call) + " at " + file + ":" + std::to_string(line) + ": " +
                  cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

void report_cuda_failure(cudaError_t error, const char* what) noexcept {
  if (error == cudaSuccess || error == cudaErrorCudartUnloading) return;
  std::fprintf(stderr, "%s: %s, %s\n", what, cudaGetErrorName(error), cudaGetErrorString(error));
}

}  // namespace augur::cuda
