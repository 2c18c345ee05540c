// Rows out of a table: embeddings by token, and rows of activations by index.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// The contract is EmbedArgs's; the table is row-major bf16, num_cols apart. Requires every id, or
/// what it refers to, to be in [0, vocab). Asynchronous on `stream`.
/// Memory-bound: reads 2 B and writes 4 B per value.
void embed(const EmbedArgs& args, cudaStream_t stream);
int64_t bytes_moved(const EmbedArgs& args);

/// The contract is GatherRowsArgs's; f32 or bf16. Asynchronous on `stream`.
/// Memory-bound: reads and writes each row once.
void gather_rows(const GatherRowsArgs& args, cudaStream_t stream);
int64_t bytes_moved(const GatherRowsArgs& args);

}  // namespace augur::cuda
