// Descriptions of matrices for the copy engine (sm_90), which cuts tiles out of them and fills up
// with zeros past their edges.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace augur::cuda {

/// Tiles of `tile_rows` rows by 64 columns of a row-major bf16 matrix, laid in shared memory in the
/// 128-byte swizzle that smem_descriptor (ptx.cuh) names. Coordinates are (column, row).
/// Requires data to be 16-byte aligned, row_stride a multiple of 8 and tile_rows at most 256.
/// Host work alone, below a microsecond; the result is passed to a kernel by value, as a
/// __grid_constant__.
CUtensorMap make_tensor_map(
    const void* data, int64_t num_rows, int64_t num_cols, int64_t row_stride, int tile_rows);

}  // namespace augur::cuda
