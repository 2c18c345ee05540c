// How much host memory there is to take.
#pragma once

#include <cstdint>

namespace augur::cpu {

/// Bytes this process may still take: what the kernel calls available, or less where a control
/// group (version 1 or 2) limits it.
int64_t available_memory_bytes();

}  // namespace augur::cpu
