// The name of one expert of a model.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace augur {

/// Ordered by layer, then expert: the order in which a forward pass asks for them.
struct ExpertKey {
  int32_t layer = 0;
  int32_t expert = 0;

  friend auto operator<=>(const ExpertKey&, const ExpertKey&) = default;
};

}  // namespace augur

template <>
struct std::hash<augur::ExpertKey> {
  size_t operator()(const augur::ExpertKey& key) const noexcept {
    // A multiplication by an odd constant (2^64 / golden ratio) spreads both halves.
    const uint64_t both = static_cast<uint64_t>(static_cast<uint32_t>(key.layer)) << 32 |
                          static_cast<uint32_t>(key.expert);
    const uint64_t mixed = both * 0x9e3779b97f4a7c15u;
    return static_cast<size_t>(mixed ^ (mixed >> 32));
  }
};
