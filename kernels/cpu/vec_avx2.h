// Sixteen floats in two AVX2 registers. Only for units compiled with AVX2 and FMA; see
// vec_avx512.h for what the operations mean.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace augur::cpu {

struct VecAvx2 {
  struct F {
    __m256 lo, hi;
  };
  struct Mask {
    __m256i lo, hi;
  };
  // bf16 has no arithmetic here: the first and the second of each pair, widened to floats.
  struct Pair {
    __m256 first, second;
  };
  struct Pairs {
    F first, second;
  };
  // 4 x 1 sums of two registers, 4 operands and 2 broadcasts of the 16 registers.
  static constexpr int kRowTile = 4;
  static constexpr int kVecTile = 1;
  static constexpr int kRouterSums = 4;

  static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F in_register(float x) { return set1(x); }
  static F load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  static void store(float* to, F x) {
    _mm256_storeu_ps(to, x.lo);
    _mm256_storeu_ps(to + 8, x.hi);
  }
  static F load_first(const float* from, int64_t count) {
    const Mask mask = first_lanes(count);
    return {_mm256_maskload_ps(from, mask.lo), _mm256_maskload_ps(from + 8, mask.hi)};
  }
  static void store_first(float* to, F x, int64_t count) {
    const Mask mask = first_lanes(count);
    _mm256_maskstore_ps(to, mask.lo, x.lo);
    _mm256_maskstore_ps(to + 8, mask.hi, x.hi);
  }

  static F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F fma(F a, F b, F c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
  }
  static F fms(F a, F b, F c) {
    return {_mm256_fmsub_ps(a.lo, b.lo, c.lo), _mm256_fmsub_ps(a.hi, b.hi, c.hi)};
  }
  static F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F round(F x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.lo, kNearest), _mm256_round_ps(x.hi, kNearest)};
  }
  static F scale_exp2(F x, F n) { return mul(x, {power_of_2(n.lo), power_of_2(n.hi)}); }
  static F raise_exponent(F x, F shifted) {
    return {raise_exponent(x.lo, shifted.lo), raise_exponent(x.hi, shifted.hi)};
  }

  static Mask first_lanes(int64_t count) {
    const __m256i limit = _mm256_set1_epi32(static_cast<int>(count));
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_cmpgt_epi32(limit, lane),
            _mm256_cmpgt_epi32(limit, _mm256_add_epi32(lane, _mm256_set1_epi32(8)))};
  }
  static F select(Mask mask, F a, F b) {
    return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(mask.lo)),
            _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(mask.hi))};
  }
  static uint32_t equal_bits(F a, F b) {
    const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ));
    const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
    return static_cast<uint32_t>(lo | hi << 8);
  }
  static F replace(F x, uint32_t bits, F value) {
    const __m256i lane_bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const auto mask = [&](uint32_t half) {
      return _mm256_cmpeq_epi32(
          _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(half)), lane_bits), lane_bits);
    };
    return select({mask(bits), mask(bits >> 8)}, value, x);
  }

  static float reduce_max(F x) {
    const __m256 m8 = _mm256_max_ps(x.lo, x.hi);
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
  }
  static float reduce_add(F x) {
    const __m256 s8 = _mm256_add_ps(x.lo, x.hi);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    s4 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s4, _mm_movehdup_ps(s4)));
  }
  static void reduce_sums(const F (&sums)[kRouterSums], float* out) {
    for (int i = 0; i < kRouterSums; ++i) out[i] = reduce_add(sums[i]);
  }

  static void store_bf16(uint16_t* to, F x) {
    // Packing works within 128-bit halves: the permutation puts the values back in order.
    const __m256i packed = _mm256_packus_epi32(rounded(x.lo), rounded(x.hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  static void store_bf16_first(uint16_t* to, F x, int64_t count) {
    alignas(32) uint16_t values[16];
    store_bf16(values, x);
    for (int64_t i = 0; i < 16 && i < count; ++i) to[i] = values[i];
  }
  static void store_bf16_twice(uint16_t* to, F a, F b) {
    store_bf16(to, a);
    store_bf16(to + 16, b);
  }
  static void store_bf16_half(std::byte* pairs, F x, int parity, int64_t count) {
    alignas(32) uint16_t values[16];
    store_bf16(values, x);
    uint16_t* to = reinterpret_cast<uint16_t*>(pairs) + parity;
    for (int64_t i = 0; i < 16 && i < count; ++i) to[2 * i] = values[i];
  }

  static void store_int8_first(int8_t* to, F x, int64_t count) {
    // Packing works within 128-bit halves: four values of lo, then four of hi, in each.
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi));
    const __m256i in_order = _mm256_permute4x64_epi64(words, 0xd8);
    alignas(16) int8_t values[16];
    _mm_store_si128(
        reinterpret_cast<__m128i*>(values),
        _mm_packs_epi16(_mm256_castsi256_si128(in_order), _mm256_extracti128_si256(in_order, 1)));
    for (int64_t i = 0; i < 16 && i < count; ++i) to[i] = values[i];
  }

  static Pair broadcast_pair(const uint32_t* from) {
    const __m256i pair = _mm256_set1_epi32(static_cast<int>(*from));
    return {first_values(pair), second_values(pair)};
  }
  static Pairs load_pairs(const std::byte* from) {
    const __m256i* pairs = reinterpret_cast<const __m256i*>(from);
    const __m256i lo = _mm256_loadu_si256(pairs);
    const __m256i hi = _mm256_loadu_si256(pairs + 1);
    return {{first_values(lo), first_values(hi)}, {second_values(lo), second_values(hi)}};
  }
  static Pairs load_int8_pairs(const std::byte* from) {
    return {load_int8(from), load_int8(from + 16)};
  }
  static Pairs first_of_pairs(Pairs x) { return {x.first, zero()}; }
  static F dot(F sum, Pair a, Pairs b) {
    sum = fma({a.first, a.first}, b.first, sum);
    return fma({a.second, a.second}, b.second, sum);
  }

 private:
  static F load_int8(const std::byte* from) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(values)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(values, 8)))};
  }
  static __m256 raise_exponent(__m256 x, __m256 shifted) {
    return _mm256_castsi256_ps(_mm256_add_epi32(
        _mm256_castps_si256(x), _mm256_slli_epi32(_mm256_castps_si256(shifted), 23)));
  }
  static __m256 first_values(__m256i pairs) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  }
  static __m256 second_values(__m256i pairs) {
    return _mm256_castsi256_ps(
        _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  // 2^n for n in [-127, 127]; 0 at -127 and below.
  static __m256 power_of_2(__m256 n) {
    const __m256i whole = _mm256_cvtps_epi32(_mm256_max_ps(n, _mm256_set1_ps(-127)));
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(whole, _mm256_set1_epi32(127)), 23));
  }
  // To bf16 in the low half of each lane: to nearest, ties to even; NaN stays NaN.
  static __m256i rounded(__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i upper = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    const __m256i nearest = _mm256_srli_epi32(
        _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(nearest, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), is_nan);
  }
};

}  // namespace augur::cpu
