// Matrix products with AVX512_BF16: vdpbf16ps adds two columns of 16 weight rows at a time.
//
// Four panels by six tokens, or two by twelve, keep 24 accumulators in registers; per pair of
// columns they need a load per panel and a broadcast per token for 24 products, so the multipliers
// are the limit. Four by six loads least; two by twelve passes over the weights of up to 24 tokens
// only once or twice. Later passes find the weights in L2, and what would leave memory idle
// meanwhile is spent on bringing in the next panels.
// Packed tokens are bf16 rows, one tile longer than the columns so that rows a power of two long
// do not all fall into the same cache sets.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_avx512_math.h"

namespace augur::cpu {
namespace {

// Up to here two panels by twelve tokens are faster, because fewer passes wait for memory.
constexpr int64_t kMaxTokensOfTwoPanels = 24;

// How far ahead int8 weights are fetched: widening fills the reorder window with so many operations
// that too few loads would wait in it at once.
constexpr int64_t kInt8AheadBytes = 1024;

// Tokens of one register block: 24 sums, or 12 for a last single panel.
constexpr int max_tokens(int num_panels) {
  return num_panels == 4 ? 6 : 12;
}

int64_t token_stride(int64_t num_col_tiles) {
  return (num_col_tiles + 1) * 32;
}

// Piece number `piece` of bf16 or int8 tiles.
template <bool kIsInt8>
inline __m512bh load_weights(const std::byte* tiles, int64_t piece) {
  return reinterpret_cast<__m512bh>(kIsInt8 ? widen_piece(tiles + piece * 32)
                                            : _mm512_load_si512(tiles + piece * 64));
}

inline __m512bh broadcast_pair(const uint16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
}

// One register block: kTokens tokens by kPanels panels, for kGated gate panels and then as many up
// panels. On the way, kAhead of the panels after them, from number `first_ahead` on, are brought
// from memory to the cache; they may lie past the matrix, where that does no harm.
template <bool kIsGated, bool kIsInt8, int kPanels, int kTokens, int kAhead>
void multiply_tile(const GemmBlock& block,
                   int64_t first_token,
                   int64_t first_panel,
                   int64_t first_ahead) {
  constexpr int kOutPanels = kIsGated ? kPanels / 2 : kPanels;
  constexpr int64_t kPieceBytes = kIsInt8 ? 32 : 64;
  const int64_t panel_bytes = block.num_col_tiles * 16 * kPieceBytes;
  const std::byte* weights[kPanels];
  for (int p = 0; p < kOutPanels; ++p) {
    const int64_t offset = (first_panel - block.first_weight_panel + p) * panel_bytes;
    weights[p] = block.weights + offset;
    if (kIsGated) weights[kOutPanels + p] = block.up + offset;
  }
  const std::byte* ahead[kPanels];
  for (int i = 0; i < kAhead; ++i) ahead[i] = weights[first_ahead + i] + kOutPanels * panel_bytes;
  const int64_t x_stride = token_stride(block.num_col_tiles);
  const uint16_t* const x =
      reinterpret_cast<const uint16_t*>(block.tokens) + first_token * x_stride;

  __m512 sums[kTokens][kPanels];
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_setzero_ps();
  }
  const int64_t num_pairs = block.num_col_tiles * 16;
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
#pragma GCC unroll 4
    for (int i = 0; i < kAhead; ++i) _mm_prefetch(ahead[i] + pair * kPieceBytes, _MM_HINT_T1);
    if constexpr (kIsInt8) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        _mm_prefetch(weights[p] + pair * kPieceBytes + kInt8AheadBytes, _MM_HINT_T0);
      }
    }
    __m512bh w[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) w[p] = load_weights<kIsInt8>(weights[p], pair);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const __m512bh x_pair = broadcast_pair(x + t * x_stride + pair * 2);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_dpbf16_ps(sums[t][p], w[p], x_pair);
    }
  }

#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < kOutPanels; ++p) {
      const int64_t panel = first_panel + p;
      if constexpr (kIsGated) {
        const int64_t out_tiles = (block.num_rows + 31) / 32;
        auto* const row =
            static_cast<uint16_t*>(block.out) + (first_token + t) * token_stride(out_tiles);
        store_gated(scale_sums(block.scales, panel, sums[t][p]),
                    scale_sums(block.up_scales, panel, sums[t][kOutPanels + p]), row + panel * 16);
        // The other half of the last tile, where the number of panels is odd.
        if ((panel + 1) * 16 >= block.num_rows && panel % 2 == 0) clear_half(row + panel * 16 + 16);
      } else {
        store_sums(block, first_token + t, panel, sums[t][p]);
      }
    }
  }
}

template <bool kIsGated, bool kIsInt8, int kPanels, int kAhead, int kTokens = max_tokens(kPanels)>
void multiply_tokens(
    const GemmBlock& block, int64_t token, int64_t num_tokens, int64_t panel, int64_t first_ahead) {
  if (num_tokens == kTokens) {
    multiply_tile<kIsGated, kIsInt8, kPanels, kTokens, kAhead>(block, token, panel, first_ahead);
  } else if constexpr (kTokens > 1) {
    multiply_tokens<kIsGated, kIsInt8, kPanels, kAhead, kTokens - 1>(block, token, num_tokens,
                                                                     panel, first_ahead);
  }
}

// All tokens of the block by kPanels panels. The next panels are fetched at an even rate: in a
// single pass as many as are read, in several one after another; a faster rate than memory's would
// hold up the passes themselves. Few tokens leave the multipliers idle, and there the hardware's
// own prefetching does as well.
template <bool kIsGated, bool kIsInt8, int kPanels>
void multiply_panels(const GemmBlock& block, int64_t panel) {
  if constexpr (kIsInt8) {  // all tokens at once: widening costs more than a product
    multiply_tokens<kIsGated, true, kPanels, 0>(block, block.first_token, block.num_tokens, panel,
                                                0);
    return;
  }
  constexpr int64_t kMaxTokens = max_tokens(kPanels);
  const int64_t num_groups = (block.num_tokens + kMaxTokens - 1) / kMaxTokens;
  for (int64_t group = 0; group < num_groups; ++group) {
    // Groups of nearly equal size: seven tokens are four and three, not six and one.
    const int64_t begin = group * block.num_tokens / num_groups;
    const int64_t count = (group + 1) * block.num_tokens / num_groups - begin;
    const int64_t token = block.first_token + begin;
    if (block.has_cached_weights) {
      multiply_tokens<kIsGated, false, kPanels, 0>(block, token, count, panel, 0);
    } else if (num_groups == 1 && kPanels == 2) {
      multiply_tokens<kIsGated, false, kPanels, kPanels>(block, token, count, panel, 0);
    } else if (num_groups >= kPanels && group < kPanels) {
      multiply_tokens<kIsGated, false, kPanels, 1>(block, token, count, panel, group);
    } else {
      multiply_tokens<kIsGated, false, kPanels, 0>(block, token, count, panel, 0);
    }
  }
}

template <bool kIsGated, bool kIsInt8>
void multiply_all(const GemmBlock& block) {
  constexpr int64_t kShare = kIsGated ? 2 : 1;  // registers of weights per panel of the output
  int64_t panel = block.first_panel;
  const int64_t end = panel + block.num_panels;
  const bool is_wide = block.num_tokens <= 6 || block.num_tokens > kMaxTokensOfTwoPanels;
  for (; is_wide && panel + 4 / kShare <= end; panel += 4 / kShare) {
    multiply_panels<kIsGated, kIsInt8, 4>(block, panel);
  }
  for (; panel + 2 / kShare <= end; panel += 2 / kShare) {
    multiply_panels<kIsGated, kIsInt8, 2>(block, panel);
  }
  if constexpr (!kIsGated) {
    if (panel < end) multiply_panels<false, kIsInt8, 1>(block, panel);
  }
}

void multiply(const GemmBlock& block) {
  if (block.output == GemmOutput::kGated) {
    block.is_int8 ? multiply_all<true, true>(block) : multiply_all<true, false>(block);
  } else {
    block.is_int8 ? multiply_all<false, true>(block) : multiply_all<false, false>(block);
  }
}

int64_t packed_bytes(int64_t num_tokens, int64_t num_col_tiles) {
  return num_tokens * token_stride(num_col_tiles) * 2;
}

void pack_tokens(const PackTokensArgs& args) {
  const int64_t num_col_tiles = (args.num_cols + 31) / 32;
  const int64_t stride = token_stride(num_col_tiles);
  for (int64_t t = args.first_token; t < args.first_token + args.num_tokens; ++t) {
    const int64_t row = args.rows == nullptr ? t : args.rows[t];
    auto* const to = reinterpret_cast<uint16_t*>(args.to) + t * stride;
    std::memcpy(to, args.x + row * args.x_stride, args.num_cols * 2);
    std::memset(to + args.num_cols, 0, (num_col_tiles * 32 - args.num_cols) * 2);
  }
}

}  // namespace

const GemmUnit kAvx512Gemm = {
    /*token_group=*/1,
    /*panel_group=*/4,
    /*block_bytes=*/512 << 10,
    /*max_int8_tokens=*/max_tokens(2),
    packed_bytes,
    pack_tokens,
    multiply,
    widen,
    combine};

}  // namespace augur::cpu
