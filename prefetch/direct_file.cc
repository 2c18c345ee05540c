#include "prefetch/direct_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <string>
#include <utility>

namespace augur {

DirectFile::DirectFile(const File& file) {
  const std::string path = "/proc/self/fd/" + std::to_string(file.descriptor());
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (descriptor_ < 0) return;
  // Some file systems take the flag and refuse the reads.
  alignas(kDirectAlignment) std::byte sample[kDirectAlignment];
  if (::pread(descriptor_, sample, sizeof(sample), 0) < 0) {
    ::close(std::exchange(descriptor_, -1));
  }
}

DirectFile::~DirectFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

DirectFile::DirectFile(DirectFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)) {}

}  // namespace augur
