// A file for a trace: made in one folder and nowhere else, whatever name was asked for.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace augur::server {

/// Whether `name` is one plain file name: 1 to 128 letters, digits, '.', '_' and '-', the first no
/// '.' and no '-'.
bool is_plain_file_name(std::string_view name);

/// A folder that is held open, so that it stays the same one whatever is renamed.
/// Threading: immutable.
class TraceFolder {
 public:
  /// Throws ConfigError when there is no such folder.
  explicit TraceFolder(const std::filesystem::path& path);
  ~TraceFolder();
  TraceFolder(const TraceFolder&) = delete;
  TraceFolder& operator=(const TraceFolder&) = delete;

  /// Makes a file that is not there yet, mode 0640, for writing. Follows no link and leaves the
  /// folder by no way. Requires is_plain_file_name(name). Returns its descriptor; -1 with errno set
  /// when it cannot be had (EEXIST).
  int create(const std::string& name) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  const std::filesystem::path path_;
  int fd_ = -1;
};

}  // namespace augur::server
