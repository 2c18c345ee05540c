// How matrices for mlp and moe lie in device memory.
//
// A matrix is cut into tiles of 64 rows by 64 columns, 8 KiB each, zero where it ends earlier. The
// tiles of 64 rows (a strip) follow one another, so that a strip is read as one sequential stream.
// Inside a tile row i has 128 bytes, and its 16-byte chunk j lies at chunk j ^ (i % 8): what
// wgmma reads from shared memory as the 128-byte swizzle, so that a tile is copied there as it is.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define AUGUR_HOST_DEVICE __host__ __device__
#else
#define AUGUR_HOST_DEVICE
#endif

namespace augur::cuda {

inline constexpr int kTileRows = 64;
inline constexpr int kTileCols = 64;
inline constexpr int64_t kTileBytes = int64_t{kTileRows} * kTileCols * 2;
/// Ops::weight_layout. Another layout has another name.
inline constexpr char kLayoutName[] = "cuda-tiles-64x64-swizzled";

AUGUR_HOST_DEVICE constexpr int64_t num_tiles(int64_t length) {
  return (length + kTileCols - 1) / kTileCols;
}
AUGUR_HOST_DEVICE constexpr int64_t strip_bytes(int64_t num_cols) {
  return num_tiles(num_cols) * kTileBytes;
}
AUGUR_HOST_DEVICE constexpr int64_t tiled_matrix_bytes(int64_t num_rows, int64_t num_cols) {
  return num_tiles(num_rows) * strip_bytes(num_cols);
}
/// Bytes from the start of the matrix to the value at (row, col).
AUGUR_HOST_DEVICE constexpr int64_t tiled_offset(int64_t row, int64_t col, int64_t num_cols) {
  const int64_t tile = row / kTileRows * num_tiles(num_cols) + col / kTileCols;
  const int64_t chunk = (col % kTileCols / 8) ^ (row % 8);
  return tile * kTileBytes + row % kTileRows * 128 + chunk * 16 + col % 8 * 2;
}

}  // namespace augur::cuda
