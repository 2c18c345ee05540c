// Where the parts of one allocation begin.
#pragma once

#include <cstdint>

namespace augur::cuda {

/// What cudaMalloc aligns to, so that a part is aligned as an allocation of its own would be.
inline constexpr int64_t kAlignment = 256;

/// The least multiple of kAlignment that is >= num_bytes. num_bytes >= 0.
constexpr int64_t align_up(int64_t num_bytes) {
  return (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace augur::cuda
