// Sixteen floats in the compiler's vector extension, which it lowers to whatever the baseline
// has; see vec_avx512.h for what the operations mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace augur::cpu {

struct VecPortable {
  typedef float F __attribute__((vector_size(64)));
  typedef int32_t Mask __attribute__((vector_size(64)));
  typedef uint32_t Bits __attribute__((vector_size(64)));
  typedef int8_t Bytes __attribute__((vector_size(16)));
  struct Pair {
    float first, second;
  };
  struct Pairs {
    F first, second;
  };
  static constexpr int kRowTile = 2;
  static constexpr int kVecTile = 1;
  static constexpr int kRouterSums = 4;

  static F zero() { return F{}; }
  static F set1(float x) { return F{} + x; }
  static F in_register(float x) { return set1(x); }
  static F load(const float* from) {
    F x;
    std::memcpy(&x, from, sizeof(x));
    return x;
  }
  static void store(float* to, F x) { std::memcpy(to, &x, sizeof(x)); }
  static F load_first(const float* from, int64_t count) {
    F x = {};
    for (int64_t i = 0; i < 16 && i < count; ++i) x[i] = from[i];
    return x;
  }
  static void store_first(float* to, F x, int64_t count) {
    for (int64_t i = 0; i < 16 && i < count; ++i) to[i] = x[i];
  }

  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F mul(F a, F b) { return a * b; }
  static F div(F a, F b) { return a / b; }
  static F fma(F a, F b, F c) { return a * b + c; }
  static F fms(F a, F b, F c) { return a * b - c; }
  static F max(F a, F b) { return a > b ? a : b; }
  // Adding and taking away 1.5 * 2^23 leaves the nearest whole number, for |x| < 2^22.
  static F round(F x) {
    constexpr float kShift = 12582912.0f;
    return (x + kShift) - kShift;
  }
  static F scale_exp2(F x, F n) {
    const F floor = set1(-127);
    const Bits exponent =
        __builtin_convertvector(__builtin_convertvector(max(n, floor), Mask) + 127, Bits);
    return x * reinterpret_cast<F>(exponent << 23);
  }
  static F raise_exponent(F x, F shifted) {
    return reinterpret_cast<F>(reinterpret_cast<Bits>(x) + (reinterpret_cast<Bits>(shifted) << 23));
  }

  static Mask first_lanes(int64_t count) {
    constexpr Mask kLane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return kLane < static_cast<int32_t>(count);
  }
  static F select(Mask mask, F a, F b) { return mask ? a : b; }
  static uint32_t equal_bits(F a, F b) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; ++i) bits |= static_cast<uint32_t>(a[i] == b[i]) << i;
    return bits;
  }
  static F replace(F x, uint32_t bits, F value) {
    for (int i = 0; i < 16; ++i) {
      if ((bits >> i & 1) != 0) x[i] = value[i];
    }
    return x;
  }

  static float reduce_max(F x) {
    float result = x[0];
    for (int i = 1; i < 16; ++i) result = result > x[i] ? result : x[i];
    return result;
  }
  static float reduce_add(F x) {
    float sums[8];
    for (int i = 0; i < 8; ++i) sums[i] = x[i] + x[i + 8];
    for (int i = 0; i < 4; ++i) sums[i] += sums[i + 4];
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
  }
  static void reduce_sums(const F (&sums)[kRouterSums], float* out) {
    for (int i = 0; i < kRouterSums; ++i) out[i] = reduce_add(sums[i]);
  }

  static void store_bf16(uint16_t* to, F x) { store_bf16_first(to, x, 16); }
  static void store_bf16_first(uint16_t* to, F x, int64_t count) {
    const Bits rounded = to_bf16_bits(x);
    for (int64_t i = 0; i < 16 && i < count; ++i) to[i] = static_cast<uint16_t>(rounded[i]);
  }
  static void store_bf16_twice(uint16_t* to, F a, F b) {
    store_bf16(to, a);
    store_bf16(to + 16, b);
  }
  static void store_bf16_half(std::byte* pairs, F x, int parity, int64_t count) {
    const Bits rounded = to_bf16_bits(x);
    uint16_t* to = reinterpret_cast<uint16_t*>(pairs) + parity;
    for (int64_t i = 0; i < 16 && i < count; ++i) to[2 * i] = static_cast<uint16_t>(rounded[i]);
  }

  static void store_int8_first(int8_t* to, F x, int64_t count) {
    const Mask whole = __builtin_convertvector(x, Mask);
    for (int64_t i = 0; i < 16 && i < count; ++i) to[i] = static_cast<int8_t>(whole[i]);
  }

  static Pair broadcast_pair(const uint32_t* from) {
    const uint32_t bits[2] = {*from << 16, *from & 0xffff0000u};
    Pair pair;
    std::memcpy(&pair, bits, sizeof(pair));
    return pair;
  }
  static Pairs load_pairs(const std::byte* from) {
    Bits pairs;
    std::memcpy(&pairs, from, sizeof(pairs));
    return {reinterpret_cast<F>(pairs << 16), reinterpret_cast<F>(pairs & 0xffff0000u)};
  }
  static Pairs load_int8_pairs(const std::byte* from) {
    return {load_int8(from), load_int8(from + 16)};
  }
  static Pairs first_of_pairs(Pairs x) { return {x.first, zero()}; }
  static F dot(F sum, Pair a, Pairs b) {
    sum = sum + a.first * b.first;
    return sum + a.second * b.second;
  }

 private:
  static F load_int8(const std::byte* from) {
    Bytes values;
    std::memcpy(&values, from, sizeof(values));
    return __builtin_convertvector(values, F);
  }
  // To nearest, ties to even; NaN stays NaN.
  static Bits to_bf16_bits(F x) {
    const Bits bits = reinterpret_cast<Bits>(x);
    const Bits nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return x == x ? nearest : (bits >> 16) | 0x40u;
  }
};

}  // namespace augur::cpu
