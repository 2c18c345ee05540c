#include "kernels/cpu/pack.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>

#include "kernels/cpu/tile_layout.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

constexpr int64_t kTileRowBytes = kTileCols * sizeof(Bf16);
constexpr int64_t kPairs = kTileCols / 2;

}  // namespace

void pack_rows_tiled(std::byte* to,
                     int64_t num_rows,
                     int64_t num_cols,
                     int64_t first_row,
                     int64_t count,
                     const Bf16* from) {
  AUGUR_REQUIRE(num_rows >= 0 && num_cols >= 0 && first_row >= 0 && count >= 0 &&
                    first_row <= num_rows && count <= num_rows - first_row,
                "rows " + std::to_string(first_row) + " and " + std::to_string(count) +
                    " following in " + std::to_string(num_rows) + " x " + std::to_string(num_cols));
  const auto* const source = reinterpret_cast<const std::byte*>(from);
  const int64_t row_bytes = num_cols * static_cast<int64_t>(sizeof(Bf16));
  const int64_t num_tiles = num_col_tiles(num_cols);
  // Tile by tile within a panel: memory is written in one run and read in at most 16.
  for (int64_t row = first_row; row < first_row + count;) {
    const int64_t panel = row / kTileRows;
    const int64_t panel_end = std::min((panel + 1) * kTileRows, first_row + count);
    for (int64_t col_tile = 0; col_tile < num_tiles; ++col_tile) {
      const int64_t piece_bytes = std::min(kTileRowBytes, row_bytes - col_tile * kTileRowBytes);
      uint32_t pairs[kTileRows][kPairs] = {};
      for (int64_t r = row; r < panel_end; ++r) {
        std::memcpy(pairs[r % kTileRows],
                    source + (r - first_row) * row_bytes + col_tile * kTileRowBytes, piece_bytes);
      }
      std::byte* const tile = to + (panel * num_tiles + col_tile) * kTileBytes;
      for (int64_t pair = 0; pair < kPairs; ++pair) {
        for (int64_t r = row; r < panel_end; ++r) {
          std::memcpy(tile + (pair * kTileRows + r % kTileRows) * 4, &pairs[r % kTileRows][pair],
                      4);
        }
      }
    }
    row = panel_end;
  }
}

void fill_random(std::byte* to, int64_t num_bytes, float amplitude, uint64_t seed) {
  AUGUR_REQUIRE(num_bytes % 2 == 0, std::to_string(num_bytes));
  auto* const values = reinterpret_cast<Bf16*>(to);
  std::minstd_rand generator(static_cast<uint32_t>(seed % 2147483646 + 1));
  const float scale = 2 * amplitude / static_cast<float>(generator.max());
  for (int64_t i = 0; i < num_bytes / 2; ++i) {
    values[i] = to_bf16(static_cast<float>(generator()) * scale - amplitude);
  }
}

}  // namespace augur::cpu
