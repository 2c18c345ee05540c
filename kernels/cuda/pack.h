// Placing weights in device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/bf16.h"

namespace augur::cuda {

/// Puts rows [first_row, first_row + count) of a matrix in the layout of mlp_layout.h, zeros
/// in the columns that fill up a tile. Rows past the matrix are not touched.
///   rows  [count, num_cols]  bf16, row-major, device memory
///   to    the whole matrix, tiled_matrix_bytes(num_rows, num_cols) long
/// Asynchronous on `stream`.
void pack_tiled(std::byte* to,
                int64_t num_rows,
                int64_t num_cols,
                int64_t first_row,
                int64_t count,
                const Bf16* rows,
                cudaStream_t stream);

/// Fills memory with bf16 values drawn evenly from [-amplitude, amplitude], the same for the same
/// seed (Philox4x32-10 would be more than weights for measuring need: a 64-bit mix per value).
/// Asynchronous on `stream`. Requires num_bytes to be a multiple of 2.
void fill_random(
    std::byte* to, int64_t num_bytes, float amplitude, uint64_t seed, cudaStream_t stream);

}  // namespace augur::cuda
