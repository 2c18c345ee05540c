// Bringing weights into L2 while kernels run that leave the memory idle.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace augur::cuda {

/// Asks for num_bytes (a multiple of 16) at `from` (16-byte aligned) to be brought into L2. Changes
/// nothing but time. Asynchronous on `stream`; the kernel ends long before the bytes have come.
void sm90_prefetch_l2(const void* from, int64_t num_bytes, cudaStream_t stream);

}  // namespace augur::cuda
