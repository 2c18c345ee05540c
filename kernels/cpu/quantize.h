// Experts with int8 weights: their layout, and the way there and back.
//
// The bytes lie in the order of tile_layout.h, a byte for each bf16: a tile of 512 bytes holds 16
// pieces of 32, piece p columns 2p and 2p + 1 of 16 rows. So a tile is widened to the bf16 tile by
// one straight pass, without a shuffle. A weight is its byte times the scale of its output row;
// whole numbers up to 127 are exact in bf16, so a product may sum bf16 times bf16 in float32 and
// multiply by the scale once, at the end: what rounds is that one product, not every weight.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/tile_layout.h"
#include "kernels/weights.h"

namespace augur::cpu {

inline constexpr int64_t kInt8TileBytes = kTileRows * kTileCols;

/// See Ops::quantize_expert. Any thread.
void quantize_expert(const ExpertLayout& from,
                     const std::byte* block,
                     const ExpertLayout& to,
                     std::byte* out);

/// The weights of a packed matrix of either format as float32, to `out` [num_rows, num_cols],
/// row-major; an int8 weight is its byte times its row's scale, rounded once. Plain loops.
void dequantize(const PackedMatrix& matrix, float* out);

}  // namespace augur::cpu
