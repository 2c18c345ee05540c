// Matrix products in float32, for instruction sets without bf16 products: written once with the
// compiler's vector types, compiled per instruction set.
//
// Packed tokens are the bf16 values as float32 rows. A pair of bf16 weights widens to float32
// with a shift (even column) and a mask (odd column).
// Included only by gemm_portable.cc and gemm_avx2.cc, each with its own Arch; everything has
// internal linkage, so that no code of one unit can stand in for a function of another.
//   Arch::multiply_add(a, b, c)   a * b + c, in the unit's own rounding
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cpu/gemm.h"

namespace augur::cpu {
namespace {

// Half a panel: 8 weight rows. Unaligned and aliasing, as memory is read through it.
using Floats = float __attribute__((vector_size(32), aligned(4), may_alias));
using Ints = int32_t __attribute__((vector_size(32), aligned(4), may_alias));

using BytePairs = int16_t __attribute__((vector_size(16), aligned(2), may_alias));

#define AUGUR_INLINE inline __attribute__((always_inline))

AUGUR_INLINE Floats fill(float value) {
  return Floats{value, value, value, value, value, value, value, value};
}
AUGUR_INLINE Ints fill_int(int32_t value) {
  return Ints{value, value, value, value, value, value, value, value};
}
AUGUR_INLINE Floats even_columns(Ints pairs) {
  return reinterpret_cast<Floats>(pairs << 16);
}
AUGUR_INLINE Floats odd_columns(Ints pairs) {
  return reinterpret_cast<Floats>(pairs & fill_int(static_cast<int32_t>(0xffff0000u)));
}

// To nearest, ties to even, still as float32; NaN stays NaN.
AUGUR_INLINE Floats round_to_bf16(Floats value) {
  const Ints bits = reinterpret_cast<Ints>(value);
  const Ints rounded = bits + fill_int(0x7fff) + (bits >> 16 & fill_int(1));
  const Ints is_nan = (bits & fill_int(0x7fffffff)) > fill_int(0x7f800000);
  const Ints chosen = (is_nan & (bits | fill_int(0x400000))) | (~is_nan & rounded);
  return reinterpret_cast<Floats>(chosen & fill_int(static_cast<int32_t>(0xffff0000u)));
}

template <typename Arch>
AUGUR_INLINE Floats exp_8(Floats x) {
  // Adding 1.5 * 2^23 rounds to a whole number, which the low bits of the sum then hold.
  const Floats shift = fill(12582912.0f);
  const Floats shifted = Arch::multiply_add(x, fill(1.44269504f), shift);
  const Floats n = shifted - shift;
  Floats r = Arch::multiply_add(n, fill(-0.693359375f), x);
  r = Arch::multiply_add(n, fill(2.12194440e-4f), r);
  Floats p = fill(1.0f / 720);
  p = Arch::multiply_add(p, r, fill(1.0f / 120));
  p = Arch::multiply_add(p, r, fill(1.0f / 24));
  p = Arch::multiply_add(p, r, fill(1.0f / 6));
  p = Arch::multiply_add(p, r, fill(0.5f));
  p = Arch::multiply_add(p, r, fill(1.0f));
  p = Arch::multiply_add(p, r, fill(1.0f));
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) +
                                  (reinterpret_cast<Ints>(shifted) << 23));
}

template <typename Arch>
AUGUR_INLINE Floats gated(Floats gate, Floats up) {
  // Within +-87 the exponent of e^x stays in range; beyond, silu is gate or all but 0.
  Floats minus_gate = -gate;
  minus_gate = minus_gate > fill(87.0f) ? fill(87.0f) : minus_gate;
  minus_gate = minus_gate < fill(-87.0f) ? fill(-87.0f) : minus_gate;
  return round_to_bf16(gate / (fill(1.0f) + exp_8<Arch>(minus_gate)) * up);
}

AUGUR_INLINE int64_t token_stride(int64_t num_col_tiles) {
  // Half a tile more, so that long rows do not all fall into the same cache sets.
  return num_col_tiles * 32 + 16;
}

// The sums of 8 weight rows, times their scales where there are any.
AUGUR_INLINE Floats scaled(const float* scales, int64_t col, Floats sums) {
  return scales == nullptr ? sums : sums * *reinterpret_cast<const Floats*>(scales + col);
}

AUGUR_INLINE void store_half(const GemmBlock& block, int64_t token, int64_t col, Floats sums) {
  const int64_t num_left = block.num_rows - col;
  sums = scaled(block.scales, col, sums);
  for (int64_t i = 0; i < 8 && i < num_left; ++i) {
    const float value = block.bias == nullptr ? sums[i] : sums[i] + block.bias[col + i];
    const int64_t at = token * block.out_stride + col + i;
    if (block.output == GemmOutput::kF32) {
      static_cast<float*>(block.out)[at] = value;
    } else {
      const Floats rounded = round_to_bf16(fill(value));
      uint32_t bits;
      const float first = rounded[0];
      std::memcpy(&bits, &first, sizeof(bits));
      static_cast<uint16_t*>(block.out)[at] = static_cast<uint16_t>(bits >> 16);
    }
  }
}

// The even or odd column of half of piece number `piece`: 8 rows.
template <bool kIsInt8>
AUGUR_INLINE Floats load_column(const std::byte* tiles, int64_t piece, int half, int odd) {
  if constexpr (kIsInt8) {
    const BytePairs bytes = reinterpret_cast<const BytePairs*>(tiles)[piece * 2 + half];
    const Ints pairs = __builtin_convertvector(bytes, Ints);
    return __builtin_convertvector(odd == 0 ? pairs << 24 >> 24 : pairs >> 8, Floats);
  } else {
    const Ints pairs = reinterpret_cast<const Ints*>(tiles)[piece * 2 + half];
    return odd == 0 ? even_columns(pairs) : odd_columns(pairs);
  }
}

template <typename Arch, bool kIsGated, bool kIsInt8, int kPanels, int kTokens>
void multiply_tile(const GemmBlock& block, int64_t first_token, int64_t first_panel) {
  constexpr int kOutPanels = kIsGated ? kPanels / 2 : kPanels;
  const int64_t panel_bytes = block.num_col_tiles * (kIsInt8 ? 512 : 1024);
  const std::byte* weights[kPanels];
  for (int p = 0; p < kOutPanels; ++p) {
    const int64_t offset = (first_panel - block.first_weight_panel + p) * panel_bytes;
    weights[p] = block.weights + offset;
    if (kIsGated) weights[kOutPanels + p] = block.up + offset;
  }
  const int64_t x_stride = token_stride(block.num_col_tiles);
  const float* const x = reinterpret_cast<const float*>(block.tokens) + first_token * x_stride;

  Floats sums[kTokens][kPanels][2] = {};
  const int64_t num_pairs = block.num_col_tiles * 16;
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    for (int odd = 0; odd < 2; ++odd) {
      Floats w[kPanels][2];
      for (int p = 0; p < kPanels; ++p) {
        for (int half = 0; half < 2; ++half) {
          w[p][half] = load_column<kIsInt8>(weights[p], pair, half, odd);
        }
      }
      for (int t = 0; t < kTokens; ++t) {
        const Floats value = fill(x[t * x_stride + pair * 2 + odd]);
        for (int p = 0; p < kPanels; ++p) {
          for (int half = 0; half < 2; ++half) {
            sums[t][p][half] = Arch::multiply_add(w[p][half], value, sums[t][p][half]);
          }
        }
      }
    }
  }

  for (int t = 0; t < kTokens; ++t) {
    for (int p = 0; p < kOutPanels; ++p) {
      for (int half = 0; half < 2; ++half) {
        const int64_t col = (first_panel + p) * 16 + half * 8;
        if constexpr (kIsGated) {
          const int64_t out_tiles = (block.num_rows + 31) / 32;
          float* const to =
              static_cast<float*>(block.out) + (first_token + t) * token_stride(out_tiles) + col;
          *reinterpret_cast<Floats*>(to) =
              gated<Arch>(scaled(block.scales, col, sums[t][p][half]),
                          scaled(block.up_scales, col, sums[t][kOutPanels + p][half]));
          // The other half of the last tile, where the number of panels is odd.
          const int64_t panel = first_panel + p;
          if ((panel + 1) * 16 >= block.num_rows && panel % 2 == 0) {
            *reinterpret_cast<Floats*>(to + 16) = fill(0);
          }
        } else {
          store_half(block, first_token + t, col, sums[t][p][half]);
        }
      }
    }
  }
}

// Twelve of 16 registers hold sums: six tokens by one panel, three by two. A single token takes
// four panels, so that enough independent sums are under way.
template <typename Arch, bool kIsGated, bool kIsInt8, int kPanels>
void multiply_panels(const GemmBlock& block, int64_t first_panel) {
  constexpr int kMaxTokens = kPanels == 1 ? 6 : kPanels == 2 ? 3 : 1;
  const int64_t num_groups = (block.num_tokens + kMaxTokens - 1) / kMaxTokens;
  for (int64_t group = 0; group < num_groups; ++group) {
    const int64_t begin = group * block.num_tokens / num_groups;
    const int64_t end = (group + 1) * block.num_tokens / num_groups;
    const int64_t token = block.first_token + begin;
    switch (end - begin) {
      case 1:
        multiply_tile<Arch, kIsGated, kIsInt8, kPanels, 1>(block, token, first_panel);
        break;
      case 2:
        if constexpr (kMaxTokens >= 2) {
          multiply_tile<Arch, kIsGated, kIsInt8, kPanels, 2>(block, token, first_panel);
        }
        break;
      case 3:
        if constexpr (kMaxTokens >= 3) {
          multiply_tile<Arch, kIsGated, kIsInt8, kPanels, 3>(block, token, first_panel);
        }
        break;
      case 4:
        if constexpr (kMaxTokens >= 4) {
          multiply_tile<Arch, kIsGated, kIsInt8, kPanels, 4>(block, token, first_panel);
        }
        break;
      case 5:
        if constexpr (kMaxTokens >= 5) {
          multiply_tile<Arch, kIsGated, kIsInt8, kPanels, 5>(block, token, first_panel);
        }
        break;
      default:
        if constexpr (kMaxTokens >= 6) {
          multiply_tile<Arch, kIsGated, kIsInt8, kPanels, 6>(block, token, first_panel);
        }
    }
  }
}

template <typename Arch, bool kIsInt8>
void multiply_all(const GemmBlock& block) {
  int64_t panel = block.first_panel;
  const int64_t end = panel + block.num_panels;
  const bool is_single = block.num_tokens == 1;
  if (block.output == GemmOutput::kGated) {
    for (; is_single && panel + 2 <= end; panel += 2) {
      multiply_panels<Arch, true, kIsInt8, 4>(block, panel);
    }
    for (; panel < end; ++panel) multiply_panels<Arch, true, kIsInt8, 2>(block, panel);
  } else {
    for (; is_single && panel + 4 <= end; panel += 4) {
      multiply_panels<Arch, false, kIsInt8, 4>(block, panel);
    }
    for (; panel < end; ++panel) multiply_panels<Arch, false, kIsInt8, 1>(block, panel);
  }
}

// Widening int8 weights costs little beside float32 products, so any number of tokens may come.
template <typename Arch>
void multiply(const GemmBlock& block) {
  block.is_int8 ? multiply_all<Arch, true>(block) : multiply_all<Arch, false>(block);
}

template <typename Arch>
void combine(const CombineArgs& args) {
  int64_t col = 0;
  for (; col + 8 <= args.num_cols; col += 8) {
    Floats sum = fill(0);
    for (int i = 0; i < args.num_choices; ++i) {
      const float* const row = args.results + args.places[i] * args.result_stride + col;
      sum = Arch::multiply_add(fill(args.weights[i]), *reinterpret_cast<const Floats*>(row), sum);
    }
    if (args.shared != nullptr) sum += *reinterpret_cast<const Floats*>(args.shared + col);
    *reinterpret_cast<Floats*>(args.out + col) = sum;
  }
  for (; col < args.num_cols; ++col) {
    Floats sum = fill(0);
    for (int i = 0; i < args.num_choices; ++i) {
      const float value = args.results[args.places[i] * args.result_stride + col];
      sum = Arch::multiply_add(fill(args.weights[i]), fill(value), sum);
    }
    args.out[col] = args.shared == nullptr ? sum[0] : sum[0] + args.shared[col];
  }
}

int64_t packed_bytes(int64_t num_tokens, int64_t num_col_tiles) {
  return num_tokens * token_stride(num_col_tiles) * 4;
}

void pack_tokens(const PackTokensArgs& args) {
  const int64_t num_col_tiles = (args.num_cols + 31) / 32;
  const int64_t stride = token_stride(num_col_tiles);
  for (int64_t t = args.first_token; t < args.first_token + args.num_tokens; ++t) {
    const int64_t row = args.rows == nullptr ? t : args.rows[t];
    const Bf16* const from = args.x + row * args.x_stride;
    auto* const to = reinterpret_cast<uint32_t*>(args.to) + t * stride;
    for (int64_t col = 0; col < args.num_cols; ++col) to[col] = uint32_t{from[col].bits} << 16;
    for (int64_t col = args.num_cols; col < num_col_tiles * 32; ++col) to[col] = 0;
  }
}

}  // namespace
}  // namespace augur::cpu
