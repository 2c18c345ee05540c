#include "engine/server/trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "configs/config_error.h"
#include "kernels/require.h"

namespace augur::server {
namespace {

constexpr size_t kMaxNameLength = 128;

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

}  // namespace

bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameLength && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), is_name_char);
}

TraceFolder::TraceFolder(const std::filesystem::path& path)
    : path_(path), fd_(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC)) {
  if (fd_ < 0) {
    throw ConfigError(path.string(), std::string("cannot be used for traces: ") +
                                         std::strerror(errno) +
                                         "; accepted: a folder that is there");
  }
}

TraceFolder::~TraceFolder() {
  close(fd_);
}

int TraceFolder::create(const std::string& name) const {
  AUGUR_REQUIRE(is_plain_file_name(name), "the name is \"" + name + "\"");
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  constexpr mode_t kMode = 0640;
  open_how how{};
  how.flags = kFlags;
  how.mode = kMode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
  const int fd = static_cast<int>(syscall(SYS_openat2, fd_, name.c_str(), &how, sizeof(how)));
  if (fd >= 0 || errno != ENOSYS) return fd;
  // Linux before 5.6. A plain name has no way out of the folder, and O_EXCL follows no link.
  return openat(fd_, name.c_str(), kFlags, kMode);
}

}  // namespace augur::server
