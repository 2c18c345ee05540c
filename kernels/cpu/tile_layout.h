// How the CPU backends lay weights out: tiles of 16 rows by 32 columns, columns in pairs.
//
// A tile is 1 KiB: 16 pieces of 64 bytes, piece p holding columns 2p and 2p + 1 of all 16 rows
// (c0 c1 of row 0, c0 c1 of row 1, ...). So a piece is one 512-bit load whose lanes are output
// rows: a product accumulates along the columns with no sum across lanes at the end, which for
// 64 columns costs more than the product itself. A tile is also one B operand of AMX, as it lies.
// Tiles follow each other along the columns, then down the rows, so that a pass over a panel of
// 16 rows reads memory in one run. Rows and columns are padded with zeros to whole tiles.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/bf16.h"

namespace augur::cpu {

inline constexpr int64_t kTileRows = 16;
inline constexpr int64_t kTileCols = 32;
inline constexpr int64_t kTileBytes = kTileRows * kTileCols * 2;
/// Ops::weight_layout of every backend that uses these tiles. Another layout has another name.
inline constexpr char kLayoutName[] = "cpu-tiles-16x32-pairs";

constexpr int64_t num_row_tiles(int64_t num_rows) {
  return (num_rows + kTileRows - 1) / kTileRows;
}
constexpr int64_t num_col_tiles(int64_t num_cols) {
  return (num_cols + kTileCols - 1) / kTileCols;
}

constexpr int64_t tiled_bytes(int64_t num_rows, int64_t num_cols) {
  return num_row_tiles(num_rows) * num_col_tiles(num_cols) * kTileBytes;
}

/// Byte offset of the pair that holds (row, col & ~1) and (row, col | 1); the pair of the next two
/// columns in the same tile is 64 bytes on.
constexpr int64_t tiled_pair_offset(int64_t num_cols, int64_t row, int64_t col) {
  const int64_t tile = row / kTileRows * num_col_tiles(num_cols) + col / kTileCols;
  return tile * kTileBytes + col % kTileCols / 2 * 64 + row % kTileRows * 4;
}

}  // namespace augur::cpu
