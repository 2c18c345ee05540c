// How fast a file can be read past the page cache, measured in the same run as what it bounds.
#pragma once

#include <cstdint>

#include "prefetch/file.h"

namespace augur {

/// Bytes per second of direct reads at random places of a file, `depth` at a time, for a fifth of a
/// second. 0 where the file system has no direct I/O.
/// Throws std::runtime_error when a read fails.
double direct_read_rate(const File& file, int64_t read_bytes, int depth);

}  // namespace augur
