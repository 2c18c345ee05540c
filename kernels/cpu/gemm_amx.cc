// Matrix products with AMX: tdpbf16ps multiplies 16 tokens by 16 weight rows over 32 columns.
//
// Tokens are the A operand, packed into tiles [token / 16][column tile] of 16 rows by 64 bytes;
// weight tiles are the B operand as they lie. Every product uses whole tiles, whatever the number
// of tokens: rows beyond them hold leftovers, whose results are never stored. So each result is
// one chain of products along the columns, the same for any number of tokens.
// Sums of a long product leave the tile registers between blocks of columns as float32, which
// loses nothing.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_avx512_math.h"

namespace augur::cpu {
namespace {

constexpr int64_t kTile = 1024;  // bytes
// Two panels of 16 column tiles are 32 KiB: they stay in L1 while the tokens pass over them.
#ifndef VARIANT_KB
#define VARIANT_KB 16
#endif
#ifndef VARIANT_AHEAD
#define VARIANT_AHEAD 1
#endif
#ifndef VARIANT_SMALL_AHEAD
#define VARIANT_SMALL_AHEAD 1
#endif
constexpr int64_t kColTilesPerBlock = VARIANT_KB;
// Sums of one block between blocks of columns: 256 tokens x 32 rows are 32 KiB of stack.
constexpr int64_t kTokensPerBlock = 256;

// Static, because the compiler's intrinsic declares that it reads only the first eight bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t num_rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfig kTileConfig;

// Sums of 16 tokens x 16 rows, one after another for each (token tile, panel) of a block.
struct alignas(64) Sums {
  float values[16][16];
};

// Brings lines [begin, end) of 64 bytes of a tile from memory to the cache.
inline void fetch_lines(const std::byte* tile, int64_t begin, int64_t end) {
  for (int64_t line = begin; line < end; ++line) _mm_prefetch(tile + line * 64, _MM_HINT_T1);
}

// Sums of one token tile and up to four panels. Registers 0 to 3 are sums, 4 tokens, 5 to 7
// weights. panels[p] points at the first column tile of the block.
template <int kPanels>
void one_by(const std::byte* tokens,
            const std::byte* const* panels,
            int64_t num_tiles,
            bool is_first,
            Sums* sums) {
  if (is_first) {
    _tile_zero(0);
    if (kPanels > 1) _tile_zero(1);
    if (kPanels > 2) _tile_zero(2);
    if (kPanels > 3) _tile_zero(3);
  } else {
    _tile_loadd(0, sums[0].values, 64);
    if (kPanels > 1) _tile_loadd(1, sums[1].values, 64);
    if (kPanels > 2) _tile_loadd(2, sums[2].values, 64);
    if (kPanels > 3) _tile_loadd(3, sums[3].values, 64);
  }
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const int64_t offset = tile * kTile;
    if (kPanels == 4 && VARIANT_SMALL_AHEAD > 0) {
      for (int p = 0; p < 4; ++p) fetch_lines(panels[p] + offset + VARIANT_SMALL_AHEAD * kTile, 0, 16);
    }
    _tile_loadd(4, tokens + offset, 64);
    _tile_loadd(5, panels[0] + offset, 64);
    _tile_dpbf16ps(0, 4, 5);
    if (kPanels > 1) {
      _tile_loadd(6, panels[1] + offset, 64);
      _tile_dpbf16ps(1, 4, 6);
    }
    if (kPanels > 2) {
      _tile_loadd(7, panels[2] + offset, 64);
      _tile_dpbf16ps(2, 4, 7);
    }
    if (kPanels > 3) {
      _tile_loadd(5, panels[3] + offset, 64);
      _tile_dpbf16ps(3, 4, 5);
    }
  }
  _tile_stored(0, sums[0].values, 64);
  if (kPanels > 1) _tile_stored(1, sums[1].values, 64);
  if (kPanels > 2) _tile_stored(2, sums[2].values, 64);
  if (kPanels > 3) _tile_stored(3, sums[3].values, 64);
}

// Two token tiles by two panels: each tile loaded serves two products. Sums lie as
// [token tile][panel].
void two_by_two(const std::byte* tokens,
                int64_t token_tile_bytes,
                const std::byte* const* panels,
                int64_t num_tiles,
                int64_t panel_bytes,
                int64_t first_line,
                int64_t end_line,
                bool is_first,
                Sums* sums) {
  if (is_first) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  } else {
    _tile_loadd(0, sums[0].values, 64);
    _tile_loadd(1, sums[1].values, 64);
    _tile_loadd(2, sums[2].values, 64);
    _tile_loadd(3, sums[3].values, 64);
  }
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const int64_t offset = tile * kTile;
    fetch_lines(panels[0] + 2 * panel_bytes + offset, first_line, end_line);
    fetch_lines(panels[1] + 2 * panel_bytes + offset, first_line, end_line);
    _tile_loadd(6, panels[0] + offset, 64);
    _tile_loadd(4, tokens + offset, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, panels[1] + offset, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, tokens + token_tile_bytes + offset, 64);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums[0].values, 64);
  _tile_stored(1, sums[1].values, 64);
  _tile_stored(2, sums[2].values, 64);
  _tile_stored(3, sums[3].values, 64);
}

uint16_t* gated_row(const GemmBlock& block, int64_t token, int64_t panel) {
  const int64_t out_tiles = (block.num_rows + 31) / 32;
  return static_cast<uint16_t*>(block.out) + (token / 16 * out_tiles + panel / 2) * 512 +
         token % 16 * 32 + panel % 2 * 16;
}

// The results of one token tile: `sums` holds num_panels of them (kGated: gates, then ups).
void store_tile(const GemmBlock& block,
                int64_t first_token,
                int64_t first_panel,
                int num_panels,
                const Sums* sums) {
  const int64_t num_left = block.first_token + block.num_tokens - first_token;
  const int64_t num_tokens = num_left < 16 ? num_left : 16;
  const bool is_gated = block.output == GemmOutput::kGated;
  const int num_out = is_gated ? num_panels / 2 : num_panels;
  for (int p = 0; p < num_out; ++p) {
    const int64_t panel = first_panel + p;
    for (int64_t t = 0; t < num_tokens; ++t) {
      const __m512 row = _mm512_load_ps(sums[p].values[t]);
      if (!is_gated) {
        store_sums(block, first_token + t, panel, row);
        continue;
      }
      uint16_t* const to = gated_row(block, first_token + t, panel);
      store_gated(row, _mm512_load_ps(sums[num_out + p].values[t]), to);
      // The other half of the last tile, where the number of panels is odd.
      if ((panel + 1) * 16 >= block.num_rows && panel % 2 == 0) clear_half(to + 16);
    }
  }
}

// Few tokens: the weights are read once, four panels abreast.
template <int kPanels>
void multiply_one_tile(const GemmBlock& block,
                       const std::byte* const* panels,
                       int64_t first_panel) {
  Sums sums[kPanels];
  const std::byte* const tokens =
      block.tokens + block.first_token / 16 * block.num_col_tiles * kTile;
  one_by<kPanels>(tokens, panels, block.num_col_tiles, /*is_first=*/true, sums);
  store_tile(block, block.first_token, first_panel, kPanels, sums);
}

// Many tokens by one or two panels (kGated: a gate panel and its up panel).
template <int kPanels>
void multiply_panels(const GemmBlock& block, const std::byte* const* panels, int64_t first_panel) {
  Sums sums[kTokensPerBlock / 16 * kPanels];
  const int64_t token_tile_bytes = block.num_col_tiles * kTile;
  const int64_t end_token = block.first_token + block.num_tokens;
  for (int64_t begin = block.first_token; begin < end_token; begin += kTokensPerBlock) {
    const int64_t num_left = end_token - begin;
    const int64_t num_token_tiles =
        ((num_left < kTokensPerBlock ? num_left : kTokensPerBlock) + 15) / 16;
    const std::byte* const tokens = block.tokens + begin / 16 * token_tile_bytes;
    for (int64_t col_tile = 0; col_tile < block.num_col_tiles; col_tile += kColTilesPerBlock) {
      const int64_t tiles_left = block.num_col_tiles - col_tile;
      const int64_t num_tiles = tiles_left < kColTilesPerBlock ? tiles_left : kColTilesPerBlock;
      const bool is_first = col_tile == 0;
      const bool is_last = num_tiles == tiles_left;
      const std::byte* part[kPanels];
      for (int p = 0; p < kPanels; ++p) part[p] = panels[p] + col_tile * kTile;
      for (int64_t t = 0; t < num_token_tiles;) {
        const std::byte* const from = tokens + t * token_tile_bytes + col_tile * kTile;
        const int64_t num_now = kPanels == 2 && t + 2 <= num_token_tiles ? 2 : 1;
        if (num_now == 2) {
          const int64_t num_pairs = num_token_tiles / 2;
          const int64_t pair = t / 2;
          two_by_two(from, token_tile_bytes, part, num_tiles, token_tile_bytes, VARIANT_AHEAD * pair * 16 / num_pairs,
                     VARIANT_AHEAD * (pair + 1) * 16 / num_pairs, is_first, sums + t * kPanels);
        } else {
          one_by<kPanels>(from, part, num_tiles, is_first, sums + t * kPanels);
        }
        for (int64_t i = t; is_last && i < t + num_now; ++i) {
          store_tile(block, begin + i * 16, first_panel, kPanels, sums + i * kPanels);
        }
        t += num_now;
      }
    }
  }
}

void multiply(const GemmBlock& block) {
  _tile_loadconfig(&kTileConfig);
  const int64_t panel_bytes = block.num_col_tiles * kTile;
  const auto weights = [&](int64_t panel) { return block.weights + panel * panel_bytes; };
  const auto up = [&](int64_t panel) { return block.up + panel * panel_bytes; };
  const bool is_small = block.num_tokens <= 16;
  int64_t panel = block.first_panel;
  const int64_t end = panel + block.num_panels;
  if (block.output == GemmOutput::kGated) {
    for (; is_small && panel + 2 <= end; panel += 2) {
      const std::byte* const panels[] = {weights(panel), weights(panel + 1), up(panel),
                                         up(panel + 1)};
      multiply_one_tile<4>(block, panels, panel);
    }
    for (; panel < end; ++panel) {
      const std::byte* const panels[] = {weights(panel), up(panel)};
      multiply_panels<2>(block, panels, panel);
    }
  } else {
    for (; is_small && panel + 4 <= end; panel += 4) {
      const std::byte* const panels[] = {weights(panel), weights(panel + 1), weights(panel + 2),
                                         weights(panel + 3)};
      multiply_one_tile<4>(block, panels, panel);
    }
    for (; panel + 2 <= end; panel += 2) {
      const std::byte* const panels[] = {weights(panel), weights(panel + 1)};
      multiply_panels<2>(block, panels, panel);
    }
    if (panel < end) {
      const std::byte* const panels[] = {weights(panel)};
      multiply_panels<1>(block, panels, panel);
    }
  }
  _tile_release();  // an idle tile file need not be saved when threads are switched
}

int64_t packed_bytes(int64_t num_tokens, int64_t num_col_tiles) {
  return (num_tokens + 15) / 16 * num_col_tiles * kTile;
}

void pack_tokens(const PackTokensArgs& args) {
  const int64_t num_col_tiles = (args.num_cols + 31) / 32;
  for (int64_t t = args.first_token; t < args.first_token + args.num_tokens; ++t) {
    const int64_t row = args.rows == nullptr ? t : args.rows[t];
    const Bf16* const from = args.x + row * args.x_stride;
    std::byte* const to = args.to + t / 16 * num_col_tiles * kTile + t % 16 * 64;
    for (int64_t tile = 0; tile < num_col_tiles; ++tile) {
      const int64_t num_left = args.num_cols - tile * 32;
      const __mmask32 mask = num_left >= 32 ? ~__mmask32{0} : (__mmask32{1} << num_left) - 1;
      _mm512_storeu_si512(to + tile * kTile, _mm512_maskz_loadu_epi16(mask, from + tile * 32));
    }
  }
}

}  // namespace

const GemmUnit kAmxGemm = {/*token_group=*/16, /*panel_group=*/4, packed_bytes, pack_tokens,
                           multiply};

}  // namespace augur::cpu
