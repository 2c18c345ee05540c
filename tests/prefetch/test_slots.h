// Memory of a pool's slots, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "prefetch/load_worker.h"

namespace augur {

/// Zeroed slots. With an aligned stride, at multiples of 4096 bytes; otherwise never.
class TestSlots {
 public:
  TestSlots(int num_slots, int64_t block_bytes, bool is_aligned) {
    const int64_t stride =
        is_aligned ? (block_bytes + 4095) / 4096 * 4096 : (block_bytes / 4096 * 4096 + 4096 + 64);
    bytes_.resize(static_cast<size_t>(stride * num_slots + 2 * 4096));
    auto address = reinterpret_cast<uintptr_t>(bytes_.data());
    address = (address + 4095) / 4096 * 4096 + (is_aligned ? 0 : 64);
    memory_ = {reinterpret_cast<std::byte*>(address), stride, num_slots};
  }
  const SlotMemory& memory() const { return memory_; }
  std::vector<std::byte> block(int slot, int64_t block_bytes) const {
    return {memory_.slot(slot), memory_.slot(slot) + block_bytes};
  }

 private:
  std::vector<std::byte> bytes_;
  SlotMemory memory_;
};

}  // namespace augur
