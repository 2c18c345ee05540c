// The bias of a projection in the type that cuBLASLt takes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace augur::cuda {

/// Rounds `count` float32 values to bf16.
///   rounded  [count]  bf16
/// Asynchronous on `stream`.
void round_bias(const float* bias, int64_t count, void* rounded, cudaStream_t stream);

}  // namespace augur::cuda
