// The residual addition and the normalisation after it, in one pass.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// The contract is AddRmsNormArgs's: delta and out are f32 or bf16. Asynchronous on `stream`.
/// Fast where rows can be read 16 bytes at a time and hidden is a multiple of 8 up to 16,384; any
/// other size is right, and slower.
/// Memory-bound: every tensor once, hidden twice where there is a delta.
void add_rms_norm(const AddRmsNormArgs& args, cudaStream_t stream);
int64_t bytes_moved(const AddRmsNormArgs& args);

}  // namespace augur::cuda
