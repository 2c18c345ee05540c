// Sixteen floats as one value, for kernels that are written once and compiled per instruction set.
//
// A kernel's body is an AUGUR_INLINE function; AUGUR_DEFINE_FOR_EACH_ISA wraps it in one function
// per instruction set, and the compiler splits the lanes into the registers each has (g++ and
// clang vector extensions). Lane i always holds the same sums in the same order, so the
// instruction set changes a result only where multiply and add are fused.
// Lanes are passed by reference: by value their calling convention would depend on the target.
#pragma once

#include <cstdint>
#include <cstring>

#define AUGUR_INLINE inline __attribute__((always_inline))
#define AUGUR_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define AUGUR_TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))

/// Defines name_portable, name_avx2 and name_avx512 with the given result and parameters, each
/// the call `name_body arguments`.
#define AUGUR_DEFINE_FOR_EACH_ISA(result, name, parameters, arguments) \
  result name##_portable parameters {                                  \
    return name##_body arguments;                                      \
  }                                                                    \
  AUGUR_TARGET_AVX2 result name##_avx2 parameters {                    \
    return name##_body arguments;                                      \
  }                                                                    \
  AUGUR_TARGET_AVX512 result name##_avx512 parameters {                \
    return name##_body arguments;                                      \
  }

namespace augur::cpu {

inline constexpr int64_t kLanes = 16;

typedef float FloatLanes __attribute__((vector_size(64)));
typedef int32_t IntLanes __attribute__((vector_size(64)));
typedef uint32_t UintLanes __attribute__((vector_size(64)));

AUGUR_INLINE void load_lanes(const float* from, FloatLanes& lanes) {
  std::memcpy(&lanes, from, sizeof(lanes));
}
AUGUR_INLINE void store_lanes(const FloatLanes& lanes, float* to) {
  std::memcpy(to, &lanes, sizeof(lanes));
}
/// The first `count` lanes; the others become `filler`.
AUGUR_INLINE void load_some_lanes(const float* from,
                                  int64_t count,
                                  float filler,
                                  FloatLanes& lanes) {
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = filler;
  std::memcpy(&lanes, from, static_cast<size_t>(count) * sizeof(float));
}
AUGUR_INLINE void fill_lanes(float value, FloatLanes& lanes) {
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = value;
}

}  // namespace augur::cpu
