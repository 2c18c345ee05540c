// How the keys and values of the KV cache are kept.
#pragma once

#include <cstdint>

namespace augur {

enum class KvFormat : uint8_t {
  kNative,  // what the backend computes with: bf16, or float32 in the reference
  // A key or value x of one head is kept as round(x / scale) in [-127, 127] beside its own float32
  // scale, max|x| / 127; attention reads it as that times the scale, which is within half a scale
  // of what it was. Lossy. A vector of zeros has the scale 0; one that is not finite reads as NaN.
  kInt8,
};

/// A key or value of smaller magnitude is kept as zeros in int8: 127 over it could overflow.
inline constexpr float kLeastQuantised = 1e-30f;

}  // namespace augur
