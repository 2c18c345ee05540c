// The mlp and moe operations on CUDA: chooses the kernels by the number of rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace augur::cuda {

/// Bytes of scratch for any step within `limits`.
int64_t moe_workspace_bytes(const StepLimits& limits);

/// See MlpArgs and MoeArgs; x is bf16. `workspace` has moe_workspace_bytes, 256-byte aligned.
/// Asynchronous on `stream`. What the kernels chosen move and compute: their own headers.
void mlp(const MlpArgs& args, std::span<std::byte> workspace, cudaStream_t stream);
void moe(const MoeArgs& args, std::span<std::byte> workspace, cudaStream_t stream);

}  // namespace augur::cuda
