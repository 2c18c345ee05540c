#include "tools/score/output_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace augur::score {

OutputFile::OutputFile(const std::string& path) : name_(path == "-" ? "standard output" : path) {
  // Not O_APPEND: after a failure the file is cut, and writing goes on at num_bytes_.
  fd_ = path == "-" ? dup(STDOUT_FILENO) : open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  // Devices and pipes may be open for writing only.
  if (fd_ < 0 && path != "-") fd_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd_ < 0) fail("cannot be opened for writing");
  struct stat status {};
  if (fstat(fd_, &status) != 0) fail("cannot be looked at");
  // Standard output may be a file that others write to as well: never cut it.
  is_plain_file_ = S_ISREG(status.st_mode) && path != "-";
  if (!is_plain_file_) return;
  num_bytes_ = status.st_size;
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  if (errno == EWOULDBLOCK) {
    close(std::exchange(fd_, -1));
    throw OutputError(name_ + ": another program is writing it");
  }
  // Some network file systems have no locks: then there is none.
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) close(fd_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : name_(std::move(other.name_)),
      fd_(std::exchange(other.fd_, -1)),
      is_plain_file_(other.is_plain_file_),
      num_bytes_(other.num_bytes_) {}

void OutputFile::fail(const char* what) const {
  throw OutputError(name_ + ": " + what + ": " + strerror(errno));
}

void OutputFile::append(std::string_view text) {
  const int64_t start = num_bytes_;
  std::string_view left = text;
  while (!left.empty()) {
    const ssize_t written = is_plain_file_ ? pwrite(fd_, left.data(), left.size(), num_bytes_)
                                           : write(fd_, left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int error = errno;
      if (is_plain_file_) {
        const std::string_view whole = text.substr(0, text.size() - left.size());
        const size_t last_break = whole.rfind('\n');
        num_bytes_ = start + static_cast<int64_t>(last_break == whole.npos ? 0 : last_break + 1);
        // If this fails, too, the half line is found when the run is resumed.
        (void)!ftruncate(fd_, num_bytes_);
      }
      errno = error;
      fail("cannot be written");
    }
    num_bytes_ += written;
    left.remove_prefix(static_cast<size_t>(written));
  }
}

void OutputFile::truncate(int64_t num_bytes) {
  if (ftruncate(fd_, num_bytes) != 0) fail("cannot be cut");
  num_bytes_ = num_bytes;
}

void OutputFile::sync() {
  // Pipes and terminals cannot be synchronised, which is no failure of theirs.
  if (fsync(fd_) != 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
    fail("cannot be written to disk");
}

std::string OutputFile::read(int64_t offset, int64_t num_bytes) const {
  std::string text(static_cast<size_t>(std::max<int64_t>(num_bytes, 0)), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t num_read = pread(fd_, text.data() + filled, text.size() - filled,
                                   offset + static_cast<int64_t>(filled));
    if (num_read < 0 && errno == EINTR) continue;
    if (num_read < 0) fail("cannot be read back");
    if (num_read == 0) break;
    filled += static_cast<size_t>(num_read);
  }
  text.resize(filled);
  return text;
}

}  // namespace augur::score
