// Packing of weights into the layout of tile_layout.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/bf16.h"

namespace augur::cpu {

/// Packs rows [first_row, first_row + count) of a matrix [num_rows, num_cols].
///   to    tiled_bytes(num_rows, num_cols) bytes: the whole matrix, zeroed before, so that the
///         padding of its last tiles stays zero
///   from  [count, num_cols], row-major: row first_row comes first; any alignment
/// Threading: several threads may pack different rows of one matrix.
/// Requires first_row >= 0, count >= 0, first_row + count <= num_rows.
void pack_rows_tiled(std::byte* to,
                     int64_t num_rows,
                     int64_t num_cols,
                     int64_t first_row,
                     int64_t count,
                     const Bf16* from);

/// Fills memory with bf16 values drawn evenly from [-amplitude, amplitude], the same for the same
/// seed. Requires num_bytes to be even.
void fill_random(std::byte* to, int64_t num_bytes, float amplitude, uint64_t seed);

}  // namespace augur::cpu
