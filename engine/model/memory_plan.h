// What a model needs of memory, decided before a weight is read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace augur {

struct MemoryItem {
  std::string name;
  int64_t num_bytes = 0;
};

struct MemoryPlan {
  std::vector<MemoryItem> items;
  int64_t available_bytes = 0;

  int64_t total_bytes() const;
  bool fits() const { return total_bytes() <= available_bytes; }
  /// The table for people: a line per item, the sum, and what there is.
  std::string to_string() const;
};

/// "1.50 GiB", "312.0 MiB", "17 B".
std::string format_bytes(int64_t num_bytes);

}  // namespace augur
