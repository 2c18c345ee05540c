#include "prefetch/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "configs/config_error.h"
#include "kernels/require.h"

namespace augur {
namespace {

std::string reason(int error_number) {
  return std::generic_category().message(error_number);
}

// Linux moves at most 0x7ffff000 bytes a call; smaller calls also let an interrupt in.
constexpr int64_t kMaxCallBytes = int64_t{1} << 30;

}  // namespace

File::File(std::filesystem::path path) : path_(std::move(path)) {
  // O_NONBLOCK so that a named pipe in place of a file is refused below instead of waited for.
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) throw ConfigError(path_.string(), "cannot be opened: " + reason(errno));
  struct stat status = {};
  const int stat_error = ::fstat(descriptor_, &status) == 0 ? 0 : errno;
  if (stat_error != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    throw ConfigError(path_.string(), stat_error != 0 ? "cannot be examined: " + reason(stat_error)
                                                      : std::string("is not a regular file"));
  }
  num_bytes_ = status.st_size;
}

File::~File() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

File::File(File&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      num_bytes_(std::exchange(other.num_bytes_, 0)) {}

File& File::operator=(File&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(num_bytes_, other.num_bytes_);
  return *this;
}

void File::read_at(int64_t offset, void* to, int64_t num_bytes) const {
  AUGUR_REQUIRE(descriptor_ >= 0 && offset >= 0 && num_bytes >= 0,
                fmt::format("{}: {} bytes at {}", path_.string(), num_bytes, offset));
  int64_t done = 0;
  while (done < num_bytes) {
    const ssize_t got =
        ::pread(descriptor_, static_cast<char*>(to) + done,
                static_cast<size_t>(std::min(num_bytes - done, kMaxCallBytes)), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      throw ConfigError(path_.string(), fmt::format("cannot read {} bytes at offset {}: {}",
                                                    num_bytes, offset + done, reason(errno)));
    }
    if (got == 0) {
      throw ConfigError(path_.string(),
                        fmt::format("ends at offset {}, where {} bytes at offset {} were wanted: "
                                    "the file is truncated or was changed while in use",
                                    offset + done, num_bytes, offset));
    }
    done += got;
  }
}

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw ConfigError(path_.string(), "cannot be created: " + reason(errno));
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void OutputFile::write_at(int64_t offset, const void* from, int64_t num_bytes) const {
  AUGUR_REQUIRE(descriptor_ >= 0 && offset >= 0 && num_bytes >= 0,
                fmt::format("{}: {} bytes at {}", path_.string(), num_bytes, offset));
  int64_t done = 0;
  while (done < num_bytes) {
    const ssize_t put =
        ::pwrite(descriptor_, static_cast<const char*>(from) + done,
                 static_cast<size_t>(std::min(num_bytes - done, kMaxCallBytes)), offset + done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      throw ConfigError(path_.string(), fmt::format("cannot write {} bytes at offset {}: {}",
                                                    num_bytes, offset + done, reason(errno)));
    }
    done += put;
  }
}

void OutputFile::sync() const {
  if (::fsync(descriptor_) != 0) {
    throw ConfigError(path_.string(), "cannot be completed: " + reason(errno));
  }
}

void OutputFile::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  if (descriptor >= 0 && ::close(descriptor) != 0) {
    throw ConfigError(path_.string(), "cannot be completed: " + reason(errno));
  }
}

std::string read_text_file(const std::filesystem::path& path, int64_t max_bytes) {
  const File file(path);
  if (file.num_bytes() > max_bytes) {
    throw ConfigError(path.string(), fmt::format("is {} bytes long; accepted: at most {}",
                                                 file.num_bytes(), max_bytes));
  }
  std::string text(static_cast<size_t>(file.num_bytes()), '\0');
  file.read_at(0, text.data(), file.num_bytes());
  return text;
}

}  // namespace augur
