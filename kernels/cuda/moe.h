// The mlp and moe operations on CUDA: chooses the kernels by the number of rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace augur::cuda {

/// Device memory of the kernels, 256-byte aligned each.
///   state    moe_state_bytes; zero before the first call, the kernels' own from then on
///   scratch  moe_scratch_bytes
struct MoeMemory {
  std::byte* state = nullptr;
  std::span<std::byte> scratch;
};

/// For any step within `limits`.
int64_t moe_state_bytes(const StepLimits& limits);
int64_t moe_scratch_bytes(const StepLimits& limits);

/// See MlpArgs and MoeArgs; x is bf16.
/// Asynchronous on `stream`. What the kernels chosen move and compute: their own headers.
void mlp(const MlpArgs& args, const MoeMemory& memory, cudaStream_t stream);
void moe(const MoeArgs& args, const MoeMemory& memory, cudaStream_t stream);

}  // namespace augur::cuda
