// A second way into an open file, past the page cache.
#pragma once

#include <cstdint>

#include "prefetch/file.h"

namespace augur {

/// Direct I/O wants offsets, lengths and memory at multiples of this; some devices take less.
inline constexpr int64_t kDirectAlignment = 4096;

/// Threading: constant after construction.
class DirectFile {
 public:
  /// Opens the file that `file` has open (not what its path names by now) for direct I/O, and
  /// tries it. Where the file system refuses, is_open() is false.
  explicit DirectFile(const File& file);
  ~DirectFile();
  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&&) = delete;

  bool is_open() const { return descriptor_ >= 0; }
  int descriptor() const { return descriptor_; }  // still the object's; -1 when not open

 private:
  int descriptor_ = -1;
};

}  // namespace augur
