#include "kernels/cpu/quantize.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/bf16.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

constexpr int64_t kPiecesPerTile = kTileCols / 2;
constexpr int64_t kPieceBytes = kTileRows * 4;      // a pair of bf16 a row
constexpr int64_t kInt8PieceBytes = kTileRows * 2;  // a pair of bytes a row
constexpr float kLargest = 127;
constexpr uint32_t kHighHalf = 0xffff0000u;

typedef uint16_t PairLanes __attribute__((vector_size(32)));

// The nearest whole number's lowest byte: adding 1.5 * 2^23 rounds to it, ties to even, and leaves
// it in the low bits of the sum, negative ones as their complement.
AUGUR_INLINE void round_to_bytes(const FloatLanes& values, UintLanes& bytes) {
  const FloatLanes shifted = values + 12582912.0f;
  bytes = reinterpret_cast<UintLanes>(shifted) & 0xffu;
}

// One panel of 16 rows, num_tiles wide: two passes, for the largest magnitudes and for the bytes.
AUGUR_INLINE void quantize_panel_body(const std::byte* panel,
                                      int64_t num_tiles,
                                      std::byte* to,
                                      float* scales) {
  const int64_t num_pieces = num_tiles * kPiecesPerTile;
  UintLanes pairs;
  // Magnitudes compare as their bits do; NaN above infinity above all numbers.
  UintLanes largest = {};
  for (int64_t piece = 0; piece < num_pieces; ++piece) {
    std::memcpy(&pairs, panel + piece * kPieceBytes, sizeof(pairs));
    const UintLanes even = (pairs << 16) & 0x7fffffffu;
    const UintLanes odd = pairs & (kHighHalf & 0x7fffffffu);
    largest = even > largest ? even : largest;
    largest = odd > largest ? odd : largest;
  }
  const FloatLanes scale = reinterpret_cast<FloatLanes>(largest) / kLargest;
  store_lanes(scale, scales);
  const FloatLanes zero = {};
  const FloatLanes divisor = scale > zero ? scale : zero + 1.0f;
  for (int64_t piece = 0; piece < num_pieces; ++piece) {
    std::memcpy(&pairs, panel + piece * kPieceBytes, sizeof(pairs));
    const UintLanes even_bits = pairs << 16;
    const UintLanes odd_bits = pairs & kHighHalf;
    UintLanes even, odd;
    round_to_bytes(reinterpret_cast<FloatLanes>(even_bits) / divisor, even);
    round_to_bytes(reinterpret_cast<FloatLanes>(odd_bits) / divisor, odd);
    const PairLanes bytes = __builtin_convertvector(even | odd << 8, PairLanes);
    std::memcpy(to + piece * kInt8PieceBytes, &bytes, sizeof(bytes));
  }
}

AUGUR_DEFINE_FOR_EACH_ISA(void,
                          quantize_panel,
                          (const std::byte* panel, int64_t num_tiles, std::byte* to, float* scales),
                          (panel, num_tiles, to, scales))

// Every instruction set gives the same bits: nothing above is a fused multiply and add.
void quantize_matrix(const PackedMatrix& from, std::byte* to, float* scales) {
  const auto quantize_panel = has_isa(Isa::kAvx512) ? quantize_panel_avx512
                              : has_isa(Isa::kAvx2) ? quantize_panel_avx2
                                                    : quantize_panel_portable;
  const int64_t num_tiles = num_col_tiles(from.num_cols);
  for (int64_t panel = 0; panel < num_row_tiles(from.num_rows); ++panel) {
    quantize_panel(from.data + panel * num_tiles * kTileBytes, num_tiles,
                   to + panel * num_tiles * kInt8TileBytes, scales + panel * kTileRows);
  }
}

std::string describe(const ExpertLayout& layout) {
  return std::string(layout.format == ExpertFormat::kInt8 ? "int8" : "bf16") + " experts of " +
         std::to_string(layout.hidden_size) + " x " + std::to_string(layout.intermediate_size);
}

bool is_aligned(const std::byte* block) {
  return reinterpret_cast<uintptr_t>(block) % 64 == 0;
}

}  // namespace

void quantize_expert(const ExpertLayout& from,
                     const std::byte* block,
                     const ExpertLayout& to,
                     std::byte* out) {
  AUGUR_REQUIRE(from.format == ExpertFormat::kBF16 && to.format == ExpertFormat::kInt8 &&
                    from.hidden_size == to.hidden_size &&
                    from.intermediate_size == to.intermediate_size,
                "from " + describe(from) + " to " + describe(to));
  AUGUR_REQUIRE(is_aligned(block) && is_aligned(out), "a block is unaligned");
  const MlpWeights weights = from.view(block);
  const auto scales = [&](int64_t offset) { return reinterpret_cast<float*>(out + offset); };
  quantize_matrix(weights.gate, out, scales(to.gate_scales_offset));
  quantize_matrix(weights.up, out + to.up_offset, scales(to.up_scales_offset));
  quantize_matrix(weights.down, out + to.down_offset, scales(to.down_scales_offset));
}

void dequantize(const PackedMatrix& matrix, float* out) {
  for (int64_t row = 0; row < matrix.num_rows; ++row) {
    for (int64_t col = 0; col < matrix.num_cols; ++col) {
      const int64_t idx = tiled_pair_offset(matrix.num_cols, row, col) / 2 + col % 2;
      out[row * matrix.num_cols + col] =
          matrix.scales == nullptr
              ? to_float(reinterpret_cast<const Bf16*>(matrix.data)[idx])
              : static_cast<float>(reinterpret_cast<const int8_t*>(matrix.data)[idx]) *
                    matrix.scales[row];
    }
  }
}

}  // namespace augur::cpu
