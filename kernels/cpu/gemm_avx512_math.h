// What becomes of 16 sums in a 512-bit register: bias, SiLU, rounding, storing.
//
// Included only by units compiled for AVX-512; everything has internal linkage, so that no such
// code can stand in for a function of another unit.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/gemm.h"

namespace augur::cpu {
namespace {

// Far enough ahead for memory to keep up with the stores; it may lie past the matrix, where that
// does no harm.
constexpr int64_t kWidenAheadBytes = 4096;

// e^x to about 1e-7: 2^n times a polynomial (Taylor to x^6) on [-ln2/2, ln2/2].
inline __m512 exp_16(__m512 x) {
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  // ln 2 in two parts, so that n * ln 2 loses nothing.
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.0f / 720);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);  // to 0 or infinity where that is the answer
}

// silu(gate) * up, rounded to bf16.
inline void store_gated(__m512 gate, __m512 up, uint16_t* to) {
  // Beyond +-88 e^-gate leaves the range where r above is small; the quotient is then 0 or gate.
  const __m512 minus_gate =
      _mm512_max_ps(_mm512_min_ps(_mm512_sub_ps(_mm512_setzero_ps(), gate), _mm512_set1_ps(89.0f)),
                    _mm512_set1_ps(-104.0f));
  const __m512 denominator = _mm512_add_ps(_mm512_set1_ps(1.0f), exp_16(minus_gate));
  const __m512 value = _mm512_mul_ps(_mm512_div_ps(gate, denominator), up);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
}

// The sums of 16 weight rows, times their scales where there are any.
inline __m512 scale_sums(const float* scales, int64_t panel, __m512 sums) {
  return scales == nullptr ? sums : _mm512_mul_ps(sums, _mm512_loadu_ps(scales + panel * 16));
}

inline void clear_half(uint16_t* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_setzero_si256());
}

// Row `token` of the output, columns of `panel`, as far as the weights have rows.
inline void store_sums(const GemmBlock& block, int64_t token, int64_t panel, __m512 sums) {
  const int64_t col = panel * 16;
  const int64_t num_left = block.num_rows - col;
  const __mmask16 mask =
      num_left >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << num_left) - 1);
  sums = scale_sums(block.scales, panel, sums);
  if (block.bias != nullptr) {
    sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(mask, block.bias + col));
  }
  const int64_t offset = token * block.out_stride + col;
  if (block.output == GemmOutput::kF32) {
    _mm512_mask_storeu_ps(static_cast<float*>(block.out) + offset, mask, sums);
  } else {
    _mm256_mask_storeu_epi16(static_cast<uint16_t*>(block.out) + offset, mask,
                             reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(sums)));
  }
}

// 16 pairs of bytes become pairs of bf16: each is made a float, whose upper half is the bf16, as
// 127 has no more than seven bits.
inline __m512i widen_piece(const std::byte* from) {
  const __m512i pairs =
      _mm512_cvtepi16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(from)));
  const __m512 even = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(pairs, 24), 24));
  const __m512 odd = _mm512_cvtepi32_ps(_mm512_srai_epi32(pairs, 8));
  return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(even), 16),
                         _mm512_castps_si512(odd));
}

inline void widen(const std::byte* from, int64_t num_tiles, std::byte* to) {
  for (int64_t piece = 0; piece < num_tiles * 16; piece += 2) {
    _mm_prefetch(from + piece * 32 + kWidenAheadBytes, _MM_HINT_T0);
    _mm512_store_si512(to + piece * 64, widen_piece(from + piece * 32));
    _mm512_store_si512(to + piece * 64 + 64, widen_piece(from + piece * 32 + 32));
  }
}

// The sums of 16 columns stay in a register; a last partial group is masked.
inline void combine(const CombineArgs& args) {
  for (int64_t col = 0; col < args.num_cols; col += 16) {
    const int64_t num_left = args.num_cols - col;
    const __mmask16 mask =
        num_left >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << num_left) - 1);
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < args.num_choices; ++i) {
      const float* const row = args.results + args.places[i] * args.result_stride + col;
      sum = _mm512_fmadd_ps(_mm512_set1_ps(args.weights[i]), _mm512_maskz_loadu_ps(mask, row), sum);
    }
    if (args.shared != nullptr) {
      sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, args.shared + col));
    }
    _mm512_mask_storeu_ps(args.out + col, mask, sum);
  }
}

}  // namespace
}  // namespace augur::cpu
