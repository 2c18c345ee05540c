// What KvFormat::kInt8 makes of a key or value, by plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace augur {

struct PlainQuantised {
  float scale = 0;
  std::vector<int> values;

  double value(int64_t d) const { return static_cast<double>(values[d]) * scale; }
};

/// Requires finite values, the largest of which is 0 or not tiny.
inline PlainQuantised plain_quantise(std::span<const float> head) {
  float largest = 0;
  for (const float value : head) largest = std::max(largest, std::abs(value));
  PlainQuantised quantised;
  quantised.scale = largest / 127.0f;
  const float inverse = largest == 0 ? 0.0f : 127.0f / largest;
  for (const float value : head) {
    quantised.values.push_back(static_cast<int>(std::nearbyint(value * inverse)));
  }
  return quantised;
}

}  // namespace augur
