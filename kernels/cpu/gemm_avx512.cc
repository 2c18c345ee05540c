// Matrix products with AVX512_BF16: vdpbf16ps adds two columns of 16 weight rows at a time.
//
// Four panels by six tokens keep 24 accumulators in registers; per pair of columns they need
// four loads of weights and six broadcasts for 24 products, so the multipliers are the limit.
// Weights of four panels stay in L2 while the tokens of a block pass over them.
// Packed tokens are bf16 rows, one tile longer than the columns so that rows a power of two long
// do not all fall into the same cache sets.
#include <immintrin.h>

#include <cstring>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_avx512_math.h"

namespace augur::cpu {
namespace {

constexpr int kMaxTokens = 6;

int64_t token_stride(int64_t num_col_tiles) {
  return (num_col_tiles + 1) * 32;
}

inline __m512bh load_weights(const std::byte* from) {
  return reinterpret_cast<__m512bh>(_mm512_load_si512(from));
}

inline __m512bh broadcast_pair(const uint16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof(pair));
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
}

// The panels of one register block: kGated has gate panels in the first half, up in the second.
template <int kPanels>
struct Panels {
  const std::byte* weights[kPanels];
};

template <bool kIsGated, int kPanels, int kTokens>
void multiply_tile(const GemmBlock& block, int64_t first_token, int64_t first_panel) {
  constexpr int kOutPanels = kIsGated ? kPanels / 2 : kPanels;
  const int64_t panel_bytes = block.num_col_tiles * 1024;
  const std::byte* weights[kPanels];
  for (int p = 0; p < kOutPanels; ++p) {
    weights[p] = block.weights + (first_panel + p) * panel_bytes;
    if (kIsGated) weights[kOutPanels + p] = block.up + (first_panel + p) * panel_bytes;
  }
  const int64_t x_stride = token_stride(block.num_col_tiles);
  const uint16_t* const x =
      reinterpret_cast<const uint16_t*>(block.tokens) + first_token * x_stride;

  __m512 sums[kTokens][kPanels];
  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_setzero_ps();
  }
  const int64_t num_pairs = block.num_col_tiles * 16;
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    __m512bh w[kPanels];
#pragma GCC unroll 4
    for (int p = 0; p < kPanels; ++p) w[p] = load_weights(weights[p] + pair * 64);
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) {
      const __m512bh x_pair = broadcast_pair(x + t * x_stride + pair * 2);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) sums[t][p] = _mm512_dpbf16_ps(sums[t][p], w[p], x_pair);
    }
  }

#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 4
    for (int p = 0; p < kOutPanels; ++p) {
      const int64_t panel = first_panel + p;
      if constexpr (kIsGated) {
        const int64_t out_tiles = (block.num_rows + 31) / 32;
        auto* const row =
            static_cast<uint16_t*>(block.out) + (first_token + t) * token_stride(out_tiles);
        store_gated(sums[t][p], sums[t][kOutPanels + p], row + panel * 16);
        // The other half of the last tile, where the number of panels is odd.
        if ((panel + 1) * 16 >= block.num_rows && panel % 2 == 0) clear_half(row + panel * 16 + 16);
      } else {
        store_sums(block, first_token + t, panel, sums[t][p]);
      }
    }
  }
}

template <bool kIsGated, int kPanels>
void multiply_panels(const GemmBlock& block, int64_t first_panel) {
  const int64_t num_groups = (block.num_tokens + kMaxTokens - 1) / kMaxTokens;
  for (int64_t group = 0; group < num_groups; ++group) {
    // Groups of nearly equal size: seven tokens are four and three, not six and one.
    const int64_t begin = group * block.num_tokens / num_groups;
    const int64_t end = (group + 1) * block.num_tokens / num_groups;
    const int64_t token = block.first_token + begin;
    switch (end - begin) {
      case 1:
        multiply_tile<kIsGated, kPanels, 1>(block, token, first_panel);
        break;
      case 2:
        multiply_tile<kIsGated, kPanels, 2>(block, token, first_panel);
        break;
      case 3:
        multiply_tile<kIsGated, kPanels, 3>(block, token, first_panel);
        break;
      case 4:
        multiply_tile<kIsGated, kPanels, 4>(block, token, first_panel);
        break;
      case 5:
        multiply_tile<kIsGated, kPanels, 5>(block, token, first_panel);
        break;
      default:
        multiply_tile<kIsGated, kPanels, 6>(block, token, first_panel);
    }
  }
}

void multiply(const GemmBlock& block) {
  int64_t panel = block.first_panel;
  const int64_t end = panel + block.num_panels;
  if (block.output == GemmOutput::kGated) {
    for (; panel + 2 <= end; panel += 2) multiply_panels<true, 4>(block, panel);
    if (panel < end) multiply_panels<true, 2>(block, panel);
    return;
  }
  for (; panel + 4 <= end; panel += 4) multiply_panels<false, 4>(block, panel);
  if (panel + 2 <= end) {
    multiply_panels<false, 2>(block, panel);
    panel += 2;
  }
  if (panel < end) multiply_panels<false, 1>(block, panel);
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

const GemmUnit kAvx512Gemm = {/*token_group=*/1, /*panel_group=*/4, packed_bytes, pack_tokens,
                              multiply};

}  // namespace augur::cpu
