// Matrix products with AMX: tdpbf16ps multiplies 16 tokens by 16 weight rows over 32 columns.
//
// Tokens are the A operand, packed into tiles [token / 16][column tile] of 16 rows by 64 bytes;
// weight tiles are the B operand as they lie. Every product uses whole tiles, whatever the number
// of tokens: rows beyond them hold leftovers, whose results are never stored. So each result is
// one chain of products along the columns, the same for any number of tokens.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_avx512_math.h"

namespace augur::cpu {
namespace {

constexpr int64_t kTile = 1024;  // bytes
// Static, because the compiler's intrinsic declares that it reads only the first eight bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t num_rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kTileConfig;

// The two panels that are read next, brought to L2 while others are multiplied: evenly, so that
// loads of tiles need not wait, and in order along four streams (the halves of the panels), so that
// the hardware's prefetching joins in on four pages at once. What it brings holds none of the 16
// buffers of misses that loads of tiles from L2 pass through; lines asked for here do, for as long
// as memory takes. They may lie past the matrix, where that does no harm.
class Ahead {
 public:
  Ahead(const std::byte* panel_0, const std::byte* panel_1, int64_t num_tiles, int64_t num_pairs)
      : next_{panel_0, panel_0 + num_tiles * kTile / 2, panel_1, panel_1 + num_tiles * kTile / 2},
        num_lines_(num_tiles * (2 * kTile / 64)),
        lines_per_step_((2 * kTile / 64 + num_pairs - 1) / num_pairs) {}

  // To be called once per tile of columns and pair of token tiles.
  void step() {
    const int64_t end = num_done_ + lines_per_step_;
    for (; num_done_ < end && num_done_ < num_lines_; ++num_done_) {
      const std::byte*& next = next_[num_done_ % 4];
      _mm_prefetch(next, _MM_HINT_T1);
      next += 64;
    }
  }

 private:
  const std::byte* next_[4];
  int64_t num_lines_;
  int64_t lines_per_step_;
  int64_t num_done_ = 0;
};

// Sums of one token tile and up to four panels, to out [16, 16 * kPanels]. Registers 0 to 3 are
// sums, 4 tokens, 5 to 7 weights. Int8 tiles are widened on the way, into one of two buffers, so
// that the next ones can be stored while these are still loaded.
template <int kPanels, bool kIsInt8>
void one_by(const std::byte* tokens,
            const std::byte* const* panels,
            int64_t num_tiles,
            float* out,
            int64_t out_stride) {
  _tile_zero(0);
  if (kPanels > 1) _tile_zero(1);
  if (kPanels > 2) _tile_zero(2);
  if (kPanels > 3) _tile_zero(3);
  alignas(64) std::byte widened[2][kPanels][kIsInt8 ? kTile : 1];
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const std::byte* weights[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      weights[p] = kIsInt8 ? widened[tile % 2][p] : panels[p] + tile * kTile;
      if (kIsInt8) widen(panels[p] + tile * (kTile / 2), /*num_tiles=*/1, widened[tile % 2][p]);
    }
    // The compiler's intrinsics do not say that a tile load reads memory: without this the stores
    // of widen() would be dead to it.
    if (kIsInt8) asm volatile("" : : "r"(widened) : "memory");
    _tile_loadd(4, tokens + tile * kTile, 64);
    _tile_loadd(5, weights[0], 64);
    _tile_dpbf16ps(0, 4, 5);
    if (kPanels > 1) {
      _tile_loadd(6, weights[1], 64);
      _tile_dpbf16ps(1, 4, 6);
    }
    if (kPanels > 2) {
      _tile_loadd(7, weights[2], 64);
      _tile_dpbf16ps(2, 4, 7);
    }
    if (kPanels > 3) {
      _tile_loadd(5, weights[3], 64);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  const int64_t row_bytes = out_stride * 4;
  _tile_stored(0, out, row_bytes);
  if (kPanels > 1) _tile_stored(1, out + 16, row_bytes);
  if (kPanels > 2) _tile_stored(2, out + 32, row_bytes);
  if (kPanels > 3) _tile_stored(3, out + 48, row_bytes);
}

// Two token tiles by two panels, to out [32, 32]: each tile loaded serves two products. The four
// products of a step take 64 cycles, the loads of its 4 KiB 32 from L1 and 85 from L2 (measured on
// Sapphire Rapids: 100% and 75% of the peak). Cutting the columns so that weights stay in L1 made
// tiles of sums come and go instead and won nothing beside the traffic from memory. All loads stand
// before the products: they wait for nothing, and then pass each other's misses.
void two_by_two(const std::byte* tokens,
                int64_t token_tile_bytes,
                const std::byte* const* panels,
                int64_t num_tiles,
                Ahead& ahead,
                float* out,
                int64_t out_stride) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const int64_t offset = tile * kTile;
    ahead.step();
    _tile_loadd(6, panels[0] + offset, 64);
    _tile_loadd(7, panels[1] + offset, 64);
    _tile_loadd(4, tokens + offset, 64);
    _tile_loadd(5, tokens + token_tile_bytes + offset, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  const int64_t row_bytes = out_stride * 4;
  _tile_stored(0, out, row_bytes);
  _tile_stored(1, out + 16, row_bytes);
  _tile_stored(2, out + 16 * out_stride, row_bytes);
  _tile_stored(3, out + 16 * out_stride + 16, row_bytes);
}

uint16_t* gated_row(const GemmBlock& block, int64_t token, int64_t panel) {
  const int64_t out_tiles = (block.num_rows + 31) / 32;
  return static_cast<uint16_t*>(block.out) + (token / 16 * out_tiles + panel / 2) * 512 +
         token % 16 * 32 + panel % 2 * 16;
}

// The results of one token tile from sums [16, num_panels * 16] (kGated: gates, then ups).
void store_tile(const GemmBlock& block,
                int64_t first_token,
                int64_t first_panel,
                int num_panels,
                const float* sums) {
  const int64_t num_left = block.first_token + block.num_tokens - first_token;
  const int64_t num_tokens = num_left < 16 ? num_left : 16;
  const bool is_gated = block.output == GemmOutput::kGated;
  const int num_out = is_gated ? num_panels / 2 : num_panels;
  for (int64_t t = 0; t < num_tokens; ++t) {
    const float* const row = sums + t * num_panels * 16;
    for (int p = 0; p < num_out; ++p) {
      const int64_t panel = first_panel + p;
      const __m512 values = _mm512_load_ps(row + p * 16);
      if (!is_gated) {
        store_sums(block, first_token + t, panel, values);
        continue;
      }
      uint16_t* const to = gated_row(block, first_token + t, panel);
      store_gated(scale_sums(block.scales, panel, values),
                  scale_sums(block.up_scales, panel, _mm512_load_ps(row + (num_out + p) * 16)), to);
      // The other half of the last tile, where the number of panels is odd.
      if ((panel + 1) * 16 >= block.num_rows && panel % 2 == 0) clear_half(to + 16);
    }
  }
}

// Where tiles of sums may go without a detour: nothing is scaled, added, rounded or cut off.
float* direct_output(const GemmBlock& block,
                     int64_t first_token,
                     int64_t num_tokens,
                     int64_t first_panel,
                     int num_panels) {
  const bool is_whole = first_token + num_tokens <= block.first_token + block.num_tokens &&
                        (first_panel + num_panels) * 16 <= block.num_rows;
  if (block.output != GemmOutput::kF32 || block.scales != nullptr || block.bias != nullptr ||
      !is_whole) {
    return nullptr;
  }
  return static_cast<float*>(block.out) + first_token * block.out_stride + first_panel * 16;
}

// Whether to write past the caches: a stored tile would first read its lines from memory, and
// where rows lie a large power of two apart, its 16 lines also compete for one set of L1.
bool streams_out(const GemmBlock& block) {
  return block.is_large_out && reinterpret_cast<uintptr_t>(block.out) % 64 == 0 &&
         block.out_stride % 16 == 0;
}

// sums [32, 32] to out, two whole lines a row.
void stream_rows(const float* sums, float* out, int64_t out_stride) {
  for (int row = 0; row < 32; ++row) {
    _mm512_stream_ps(out + row * out_stride, _mm512_load_ps(sums + row * 32));
    _mm512_stream_ps(out + row * out_stride + 16, _mm512_load_ps(sums + row * 32 + 16));
  }
}

// One token tile by kPanels panels, and what becomes of the sums.
template <int kPanels, bool kIsInt8>
void multiply_one_tile(const GemmBlock& block,
                       const std::byte* const* panels,
                       int64_t first_token,
                       int64_t first_panel) {
  const std::byte* const tokens = block.tokens + first_token / 16 * block.num_col_tiles * kTile;
  float* const out = direct_output(block, first_token, 16, first_panel, kPanels);
  if (out != nullptr) {
    one_by<kPanels, kIsInt8>(tokens, panels, block.num_col_tiles, out, block.out_stride);
    return;
  }
  alignas(64) float sums[16 * 16 * kPanels];
  one_by<kPanels, kIsInt8>(tokens, panels, block.num_col_tiles, sums, 16 * kPanels);
  store_tile(block, first_token, first_panel, kPanels, sums);
}

// Many tokens by one or two panels (kGated: a gate panel and its up panel).
template <int kPanels>
void multiply_panels(const GemmBlock& block, const std::byte* const* panels, int64_t first_panel) {
  const int64_t tile_row_bytes = block.num_col_tiles * kTile;  // of tokens and of weights alike
  const int64_t num_token_tiles = (block.num_tokens + 15) / 16;
  const std::byte* const tokens = block.tokens + block.first_token / 16 * tile_row_bytes;
  const int64_t num_pairs = (num_token_tiles + 1) / 2;
  const int64_t distance = (block.output == GemmOutput::kGated ? 1 : kPanels) * tile_row_bytes;
  const int64_t num_ahead = block.has_cached_weights ? 0 : block.num_col_tiles;
  Ahead ahead(panels[0] + distance, panels[kPanels - 1] + distance, num_ahead, num_pairs);
  const bool is_streamed = streams_out(block);
  for (int64_t t = 0; t < num_token_tiles; t += 2) {
    const int64_t token = block.first_token + t * 16;
    if (kPanels == 1 || t + 2 > num_token_tiles) {
      multiply_one_tile<kPanels, false>(block, panels, token, first_panel);
      if (t + 2 <= num_token_tiles) {
        multiply_one_tile<kPanels, false>(block, panels, token + 16, first_panel);
      }
      continue;
    }
    const std::byte* const from = tokens + t * tile_row_bytes;
    float* const out = direct_output(block, token, 32, first_panel, kPanels);
    if (out != nullptr && !is_streamed) {
      two_by_two(from, tile_row_bytes, panels, block.num_col_tiles, ahead, out, block.out_stride);
      continue;
    }
    alignas(64) float sums[32 * 32];
    two_by_two(from, tile_row_bytes, panels, block.num_col_tiles, ahead, sums, 32);
    if (out != nullptr) {
      stream_rows(sums, out, block.out_stride);
      continue;
    }
    store_tile(block, token, first_panel, kPanels, sums);
    store_tile(block, token + 16, first_panel, kPanels, sums + 16 * 32);
  }
}

// A single token tile reads the weights once, four panels abreast.
template <bool kIsInt8>
void multiply_few(const GemmBlock& block) {
  const int64_t panel_bytes = block.num_col_tiles * (kIsInt8 ? kTile / 2 : kTile);
  const auto weights = [&](int64_t panel) { return block.weights + panel * panel_bytes; };
  const auto up = [&](int64_t panel) { return block.up + panel * panel_bytes; };
  int64_t panel = block.first_panel;
  const int64_t end = panel + block.num_panels;
  if (block.output == GemmOutput::kGated) {
    for (; panel + 2 <= end; panel += 2) {
      const std::byte* const panels[] = {weights(panel), weights(panel + 1), up(panel),
                                         up(panel + 1)};
      multiply_one_tile<4, kIsInt8>(block, panels, block.first_token, panel);
    }
    if (panel < end) {
      const std::byte* const panels[] = {weights(panel), up(panel)};
      multiply_one_tile<2, kIsInt8>(block, panels, block.first_token, panel);
    }
    return;
  }
  for (; panel + 4 <= end; panel += 4) {
    const std::byte* const panels[] = {weights(panel), weights(panel + 1), weights(panel + 2),
                                       weights(panel + 3)};
    multiply_one_tile<4, kIsInt8>(block, panels, block.first_token, panel);
  }
  for (; panel < end; ++panel) {
    const std::byte* const panels[] = {weights(panel)};
    multiply_one_tile<1, kIsInt8>(block, panels, block.first_token, panel);
  }
}

void multiply_many(const GemmBlock& block) {
  const int64_t panel_bytes = block.num_col_tiles * kTile;
  const auto weights = [&](int64_t panel) {
    return block.weights + (panel - block.first_weight_panel) * panel_bytes;
  };
  const auto up = [&](int64_t panel) {
    return block.up + (panel - block.first_weight_panel) * panel_bytes;
  };
  int64_t panel = block.first_panel;
  const int64_t end = panel + block.num_panels;
  if (block.output == GemmOutput::kGated) {
    for (; panel < end; ++panel) {
      const std::byte* const panels[] = {weights(panel), up(panel)};
      multiply_panels<2>(block, panels, panel);
    }
  } else {
    for (; panel + 2 <= end; panel += 2) {
      const std::byte* const panels[] = {weights(panel), weights(panel + 1)};
      multiply_panels<2>(block, panels, panel);
    }
    if (panel < end) {
      const std::byte* const panels[] = {weights(panel)};
      multiply_panels<1>(block, panels, panel);
    }
  }
  if (streams_out(block)) _mm_sfence();  // such stores come in no order with later ones
}

void multiply(const GemmBlock& block) {
  _tile_loadconfig(&kTileConfig);
  if (block.num_tokens > 16) {
    multiply_many(block);
  } else if (block.is_int8) {
    multiply_few<true>(block);
  } else {
    multiply_few<false>(block);
  }
  _tile_release();  // an idle tile file need not be saved when threads are switched
}

int64_t packed_bytes(int64_t num_tokens, int64_t num_col_tiles) {
  return (num_tokens + 15) / 16 * num_col_tiles * kTile;
}

// Four tiles of 16 tokens at a time: whole pages are written in one run, and 256 bytes of a row are
// read at once.
void pack_tokens(const PackTokensArgs& args) {
  const int64_t num_col_tiles = (args.num_cols + 31) / 32;
  const int64_t end = args.first_token + args.num_tokens;
  for (int64_t first = args.first_token; first < end; first += 16) {
    const int64_t num_tokens = end - first < 16 ? end - first : 16;
    std::byte* const to = args.to + first / 16 * num_col_tiles * kTile;
    for (int64_t first_tile = 0; first_tile < num_col_tiles; first_tile += 4) {
      const bool is_whole = (first_tile + 4) * 32 <= args.num_cols;
      for (int64_t t = 0; t < num_tokens; ++t) {
        const int64_t row = args.rows == nullptr ? first + t : args.rows[first + t];
        const Bf16* const from = args.x + row * args.x_stride + first_tile * 32;
        std::byte* const to_row = to + first_tile * kTile + t * 64;
        if (is_whole) {
          for (int i = 0; i < 4; ++i) {
            _mm512_storeu_si512(to_row + i * kTile, _mm512_loadu_si512(from + i * 32));
          }
          continue;
        }
        int64_t num_left = args.num_cols - first_tile * 32;
        for (int i = 0; num_left > 0; ++i, num_left -= 32) {
          const __mmask32 mask = num_left >= 32 ? ~__mmask32{0} : (__mmask32{1} << num_left) - 1;
          _mm512_storeu_si512(to_row + i * kTile, _mm512_maskz_loadu_epi16(mask, from + i * 32));
        }
      }
    }
  }
}

}  // namespace

const GemmUnit kAmxGemm = {
    /*token_group=*/16,
    /*panel_group=*/4,
    /*block_bytes=*/1 << 20,
    /*max_int8_tokens=*/16,  packed_bytes, pack_tokens, multiply, widen, combine};

}  // namespace augur::cpu
