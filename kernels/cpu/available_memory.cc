#include "kernels/cpu/available_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace augur::cpu {
namespace {

std::optional<int64_t> read_number(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;  // "max" is no number: unlimited
  return std::nullopt;
}

// Page cache counts as used in a control group but is given back on demand.
int64_t reclaimable_bytes(const char* stat_path) {
  std::ifstream file(stat_path);
  std::string key;
  int64_t value = 0;
  int64_t total = 0;
  while (file >> key >> value) {
    if (key == "inactive_file" || key == "active_file") total += value;
  }
  return total;
}

int64_t control_group_left(const char* limit_path, const char* usage_path, const char* stat_path) {
  const std::optional<int64_t> limit = read_number(limit_path);
  const std::optional<int64_t> usage = read_number(usage_path);
  if (!limit || !usage) return std::numeric_limits<int64_t>::max();
  return std::max<int64_t>(0, *limit - *usage + reclaimable_bytes(stat_path));
}

int64_t kernel_available() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kib = 0;
  std::string unit;
  while (file >> key >> kib >> unit) {
    if (key == "MemAvailable:") return kib * 1024;
  }
  return std::numeric_limits<int64_t>::max();
}

}  // namespace

int64_t available_memory_bytes() {
  return std::min({kernel_available(),
                   control_group_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                                      "/sys/fs/cgroup/memory.stat"),
                   control_group_left("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                      "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                      "/sys/fs/cgroup/memory/memory.stat")});
}

}  // namespace augur::cpu
