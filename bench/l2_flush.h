// Pushing other data out of the GPU's L2 cache.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace augur::bench {

/// Reads `num_bytes` of device memory. Asynchronous on `stream`.
void read_all(const void* data, int64_t num_bytes, cudaStream_t stream);

}  // namespace augur::bench
