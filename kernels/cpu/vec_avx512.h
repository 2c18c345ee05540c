// Sixteen floats in one AVX-512 register. Only for units compiled with AVX-512 F, BW, DQ, VL, BF16.
//
// VecAvx512, VecAvx2 and VecPortable offer the same operations to the kernels' templates. `F` is
// 16 floats, `Mask` chooses among them, `Pairs` is 16 pairs of bf16 and `Pair` one pair for all
// lanes.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace augur::cpu {

struct VecAvx512 {
  using F = __m512;
  using Mask = __mmask16;
  using Pair = __m512i;
  using Pairs = __m512i;
  // 8 x 2 sums, 2 operands and 1 broadcast of the 32 registers: 16 products for 10 loads.
  static constexpr int kRowTile = 8;
  static constexpr int kVecTile = 2;
  static constexpr int kRouterSums = 16;  // tokens x experts at a time

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  /// set1, and the compiler may not fetch it from memory again at each use: loads are what the
  /// exponential of many values would run out of.
  static F in_register(float x) {
    F result = set1(x);
    asm("" : "+v"(result));
    return result;
  }
  static F load(const float* from) { return _mm512_loadu_ps(from); }
  static void store(float* to, F x) { _mm512_storeu_ps(to, x); }
  /// The first `count` lanes (all from 16 on); the others are 0 and not read or written.
  static F load_first(const float* from, int64_t count) {
    return count >= 16 ? load(from) : _mm512_maskz_loadu_ps(first_lanes(count), from);
  }
  static void store_first(float* to, F x, int64_t count) {
    // Whole vectors take a plain store: a masked one is not forwarded to the load that follows.
    if (count >= 16) {
      store(to, x);
    } else {
      _mm512_mask_storeu_ps(to, first_lanes(count), x);
    }
  }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F fms(F a, F b, F c) { return _mm512_fmsub_ps(a, b, c); }
  /// b where a is NaN.
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT); }
  /// x * 2^n for a whole n >= -150; tiny results may be 0.
  static F scale_exp2(F x, F n) { return _mm512_scalef_ps(x, n); }
  /// x * 2^n where n is the low bits of the float `shifted`; x and the result are normal, or NaN.
  static F raise_exponent(F x, F shifted) {
    return _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_castps_si512(x), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23)));
  }

  static Mask first_lanes(int64_t count) {
    return static_cast<Mask>(count >= 16 ? 0xffff : (1u << count) - 1);
  }
  static F select(Mask mask, F a, F b) { return _mm512_mask_blend_ps(mask, b, a); }
  /// Bit i: lanes i are equal.
  static uint32_t equal_bits(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
  /// x with `value` in the lanes of `bits`.
  static F replace(F x, uint32_t bits, F value) {
    return _mm512_mask_mov_ps(x, static_cast<Mask>(bits), value);
  }

  static float reduce_max(F x) { return _mm512_reduce_max_ps(x); }
  static float reduce_add(F x) { return _mm512_reduce_add_ps(x); }

  /// out[i] is the sum over sums[i]. Every sum takes its lanes in the same order: those 8 apart,
  /// then 4, 2 and 1 apart.
  static void reduce_sums(const F (&sums)[kRouterSums], float* out) {
    F halves[8];
    for (int i = 0; i < 8; ++i) {  // lanes 0-7: sums[i], 8-15: sums[i + 8]
      halves[i] = add(_mm512_shuffle_f32x4(sums[i], sums[i + 8], 0x44),
                      _mm512_shuffle_f32x4(sums[i], sums[i + 8], 0xee));
    }
    F quarters[4];
    for (int i = 0; i < 4; ++i) {  // by 128 bits: sums[i], i + 8, i + 4, i + 12
      quarters[i] = add(_mm512_shuffle_f32x4(halves[i], halves[i + 4], 0x88),
                        _mm512_shuffle_f32x4(halves[i], halves[i + 4], 0xdd));
    }
    F eighths[2];
    for (int i = 0; i < 2; ++i) {
      eighths[i] = add(_mm512_shuffle_ps(quarters[2 * i], quarters[2 * i + 1], 0x44),
                       _mm512_shuffle_ps(quarters[2 * i], quarters[2 * i + 1], 0xee));
    }
    const F all = add(_mm512_shuffle_ps(eighths[0], eighths[1], 0x88),
                      _mm512_shuffle_ps(eighths[0], eighths[1], 0xdd));
    store(out, _mm512_shuffle_f32x4(all, all, 0xd8));
  }

  static void store_bf16(uint16_t* to, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(x));
  }
  static void store_bf16_first(uint16_t* to, F x, int64_t count) {
    if (count >= 16) {
      store_bf16(to, x);
    } else {
      _mm256_mask_storeu_epi16(to, first_lanes(count), (__m256i)_mm512_cvtneps_pbh(x));
    }
  }
  /// 32 values: those of a, then those of b.
  static void store_bf16_twice(uint16_t* to, F a, F b) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(b, a));
  }
  /// The first `count` values into one half (parity 0 or 1) of each pair at `pairs`; the other
  /// halves are not written, since another thread may be writing them.
  static void store_bf16_half(std::byte* pairs, F x, int parity, int64_t count) {
    const __m512i halves = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
    const uint32_t lanes = count >= 16 ? 0x55555555u : 0x55555555u & ((1u << 2 * count) - 1);
    _mm512_mask_storeu_epi16(pairs, static_cast<__mmask32>(lanes << parity),
                             parity != 0 ? _mm512_slli_epi32(halves, 16) : halves);
  }

  /// The first `count` values, whole numbers of [-127, 127], as int8.
  static void store_int8_first(int8_t* to, F x, int64_t count) {
    _mm_mask_storeu_epi8(to, first_lanes(count), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
  }

  static Pair broadcast_pair(const uint32_t* from) {
    return _mm512_set1_epi32(static_cast<int>(*from));
  }
  static Pairs load_pairs(const std::byte* from) { return _mm512_loadu_si512(from); }
  /// 16 pairs of int8: the first values of the pairs, then the second ones.
  static Pairs load_int8_pairs(const std::byte* from) {
    const __m512i first = bits_of_int8(from);
    const __m512i second = bits_of_int8(from + 16);
    // Whole numbers up to 256 fill no more than the upper half of a float, which is a bf16.
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(first, 16), second);
  }
  /// The second value of each pair becomes 0.
  static Pairs first_of_pairs(Pairs x) { return _mm512_and_si512(x, _mm512_set1_epi32(0xffff)); }
  /// sum + both products of each pair.
  static F dot(F sum, Pair a, Pairs b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

 private:
  static __m512i bits_of_int8(const std::byte* from) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(values)));
  }
};

}  // namespace augur::cpu
