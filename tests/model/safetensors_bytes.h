// Safetensors files put together by hand, right or wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace augur {

/// The eight bytes a file begins with.
inline std::string length_prefix(uint64_t header_bytes) {
  std::string prefix;
  for (int i = 0; i < 8; ++i) prefix += static_cast<char>(header_bytes >> (8 * i) & 0xff);
  return prefix;
}

inline std::string safetensors_bytes(std::string_view header, std::string_view data) {
  return length_prefix(header.size()) + std::string(header) + std::string(data);
}

}  // namespace augur
