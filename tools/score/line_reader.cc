#include "tools/score/line_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "configs/config_error.h"

namespace augur::score {
namespace {

constexpr size_t kBufferBytes = 1 << 20;
constexpr int kWaitMs = 100;

// FNV-1a, then a mix of the line's number: accidental changes are what it is to find.
constexpr uint64_t kFnvStart = 0xcbf29ce484222325;
uint64_t fnv_extend(uint64_t hash, std::string_view bytes) {
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}
uint64_t fnv_finish(uint64_t hash, int64_t number) {
  hash ^= static_cast<uint64_t>(number) * 0x9e3779b97f4a7c15;
  hash = (hash ^ (hash >> 32)) * 0xd6e8feb86659fd93;
  return hash ^ (hash >> 32);
}

}  // namespace

uint64_t hash_line(int64_t number, std::string_view text) {
  return fnv_finish(fnv_extend(kFnvStart, text), number);
}

LineReader::LineReader(const std::string& path, int64_t max_line_bytes)
    : name_(path == "-" ? "standard input" : path),
      max_line_bytes_(max_line_bytes),
      buffer_(kBufferBytes) {
  fd_ = path == "-" ? dup(STDIN_FILENO) : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd_ < 0 || fstat(fd_, &status) != 0) {
    const std::string reason = strerror(errno);
    if (fd_ >= 0) close(fd_);
    throw ConfigError(name_, "cannot be opened: " + reason);
  }
  if (S_ISDIR(status.st_mode)) {
    close(fd_);
    throw ConfigError(name_, "found a folder, accepted: a file of JSON lines, or - for stdin");
  }
  is_plain_file_ = S_ISREG(status.st_mode);
  if (is_plain_file_) file_bytes_ = status.st_size;
}

LineReader::~LineReader() {
  close(fd_);
}

bool LineReader::fill() {
  begin_ = end_ = 0;
  while (!is_plain_file_ && while_waiting_) {
    pollfd waiting{.fd = fd_, .events = POLLIN, .revents = 0};
    const int num_ready = poll(&waiting, 1, kWaitMs);
    if (num_ready > 0) break;
    if (num_ready < 0 && errno != EINTR)
      throw InputError(name_ + ": cannot be read: " + strerror(errno));
    if (!while_waiting_()) return false;
  }
  ssize_t num_read = 0;
  do {
    num_read = read(fd_, buffer_.data(), buffer_.size());
  } while (num_read < 0 && errno == EINTR);
  if (num_read < 0) throw InputError(name_ + ": cannot be read: " + strerror(errno));
  end_ = static_cast<size_t>(num_read);
  return num_read > 0;
}

bool LineReader::next(InputLine& line) {
  line = InputLine{.text = std::move(line.text)};
  line.text.clear();
  uint64_t hash = kFnvStart;
  bool ends_with_break = false;
  while (!ends_with_break) {
    if (begin_ == end_ && !fill()) break;
    const char* const from = buffer_.data() + begin_;
    const size_t available = end_ - begin_;
    const void* const line_break = memchr(from, '\n', available);
    ends_with_break = line_break != nullptr;
    const size_t length = ends_with_break
                              ? static_cast<size_t>(static_cast<const char*>(line_break) - from)
                              : available;
    const std::string_view part(from, length);
    hash = fnv_extend(hash, part);
    line.num_bytes += static_cast<int64_t>(length) + (ends_with_break ? 1 : 0);
    if (!line.is_too_long && static_cast<int64_t>(line.text.size() + length) > max_line_bytes_) {
      line.is_too_long = true;
      line.text = std::string();  // gives the memory back, too
    }
    if (!line.is_too_long) line.text += part;
    begin_ += length + (ends_with_break ? 1 : 0);
  }
  if (line.num_bytes == 0) return false;
  line.number = ++line_number_;
  line.hash = fnv_finish(hash, line.number);
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (line.number == 1 && line.text.starts_with(kByteOrderMark))
    line.text.erase(0, kByteOrderMark.size());
  return true;
}

}  // namespace augur::score
