// How the CPU backends lay weights out: tiles of 16 rows by 32 columns, 64 bytes a row.
//
// A tile is 1 KiB and is one A operand of AMX, 16 loads of a 512-bit or 32 of a 256-bit register.
// Tiles follow each other along the columns, then down the rows, so that a pass over a panel of
// 16 rows reads memory in one run. Rows and columns are padded with zeros to whole tiles.
// Within a row the values keep their order: packing only moves 64-byte pieces.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/bf16.h"

namespace augur::cpu {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileCols = 32;
inline constexpr int64_t kTileBytes = kTileRows * kTileCols * 2;

constexpr int64_t num_row_tiles(int64_t num_rows) {
  return (num_rows + kTileRows - 1) / kTileRows;
}
constexpr int64_t num_col_tiles(int64_t num_cols) {
  return (num_cols + kTileCols - 1) / kTileCols;
}

constexpr int64_t tiled_bytes(int64_t num_rows, int64_t num_cols) {
  return num_row_tiles(num_rows) * num_col_tiles(num_cols) * kTileBytes;
}

/// The 32 values of `row` in column tile `col_tile`; those of the next tile are kTileBytes on.
inline const Bf16* tile_row(const std::byte* data,
                            int64_t num_cols,
                            int64_t row,
                            int64_t col_tile) {
  const int64_t tile = row / kTileRows * num_col_tiles(num_cols) + col_tile;
  return reinterpret_cast<const Bf16*>(data + tile * kTileBytes) + row % kTileRows * kTileCols;
}

}  // namespace augur::cpu
