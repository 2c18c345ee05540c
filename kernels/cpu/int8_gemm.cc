#include "kernels/cpu/int8_gemm.h"

#include <algorithm>

#include "kernels/cpu/quantize.h"
#include "kernels/cpu/tile_layout.h"

namespace augur::cpu {
namespace {

// Widened weights of one call of the unit: with a block's tokens they share 1 or 2 MiB of L2.
constexpr int64_t kMostWidenedBytes = 512 << 10;

// Panels widened at a time, gate and up panels counted alike: what the unit takes abreast, or half
// of it where rows are long.
int64_t panels_at_once(const GemmUnit& unit, int64_t num_col_tiles) {
  const int64_t group_bytes = unit.panel_group * num_col_tiles * kTileBytes;
  return group_bytes <= kMostWidenedBytes ? unit.panel_group : unit.panel_group / 2;
}

}  // namespace

int64_t widened_bytes(const GemmUnit& unit, int64_t num_col_tiles) {
  if (unit.widen == nullptr) return 0;
  // Fewer columns may take more panels abreast.
  return std::max(std::min(unit.panel_group * num_col_tiles * kTileBytes, kMostWidenedBytes),
                  panels_at_once(unit, num_col_tiles) * num_col_tiles * kTileBytes);
}

void multiply_int8(const GemmUnit& unit, const GemmBlock& block, std::byte* widened) {
  GemmBlock part = block;
  if (block.num_tokens <= unit.max_int8_tokens) {
    part.is_int8 = true;
    unit.multiply(part);
    return;
  }
  part.has_cached_weights = true;
  const bool is_gated = block.output == GemmOutput::kGated;
  const int64_t step = panels_at_once(unit, block.num_col_tiles) / (is_gated ? 2 : 1);
  const int64_t end = block.first_panel + block.num_panels;
  for (int64_t panel = block.first_panel; panel < end; panel += step) {
    part.first_panel = part.first_weight_panel = panel;
    part.num_panels = std::min(step, end - panel);
    const int64_t num_tiles = part.num_panels * block.num_col_tiles;
    const int64_t offset = panel * block.num_col_tiles * kInt8TileBytes;
    part.weights = widened;
    unit.widen(block.weights + offset, num_tiles, widened);
    if (is_gated) {
      std::byte* const up = widened + num_tiles * kTileBytes;
      part.up = up;
      unit.widen(block.up + offset, num_tiles, up);
    }
    unit.multiply(part);
  }
}

}  // namespace augur::cpu
