// Host memory of the CPU backends.
#pragma once

#include <cstdint>

#include "kernels/buffer.h"

namespace augur::cpu {

/// `num_bytes` zeroed bytes, 64-byte aligned; from 2 MiB on, aligned to 2 MiB and offered to the
/// kernel for huge pages, and resident only once touched. Zero bytes make an empty buffer.
/// Throws OutOfMemory with the bytes asked for. Requires num_bytes >= 0. Any thread.
Buffer allocate_host(int64_t num_bytes);

}  // namespace augur::cpu
