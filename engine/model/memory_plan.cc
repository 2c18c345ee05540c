#include "engine/model/memory_plan.h"

#include <fmt/format.h>

namespace augur {

int64_t MemoryPlan::total_bytes() const {
  int64_t total = 0;
  for (const MemoryItem& item : items) total += item.num_bytes;
  return total;
}

std::string MemoryPlan::to_string() const {
  std::string table;
  for (const MemoryItem& item : items) {
    table += fmt::format("  {:<36} {:>12}\n", item.name, format_bytes(item.num_bytes));
  }
  table += fmt::format("  {:<36} {:>12}\n", "total", format_bytes(total_bytes()));
  table += fmt::format("  {:<36} {:>12}\n", "available", format_bytes(available_bytes));
  return table;
}

std::string format_bytes(int64_t num_bytes) {
  const double bytes = static_cast<double>(num_bytes);
  if (num_bytes >= int64_t{1} << 30) return fmt::format("{:.2f} GiB", bytes / (1 << 30));
  if (num_bytes >= 1 << 20) return fmt::format("{:.1f} MiB", bytes / (1 << 20));
  if (num_bytes >= 1 << 10) return fmt::format("{:.1f} KiB", bytes / (1 << 10));
  return fmt::format("{} B", num_bytes);
}

}  // namespace augur
