// A file that only grows, with every failure told.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace augur::score {

/// Output that cannot be opened or written: a full disk, a closed pipe, a quota.
class OutputError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class OutputFile {
 public:
  /// Opens `path` ("-": standard output) for appending and makes it if need be. A plain file is
  /// locked: a second program that opens it is refused. Throws OutputError.
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;

  /// Writes all of `text`. When that fails, a plain file is cut back to its last whole line.
  /// Throws OutputError.
  void append(std::string_view text);
  /// Cuts a plain file. Throws OutputError.
  void truncate(int64_t num_bytes);
  /// Returns when the bytes are on the disk, as far as the system knows. Throws OutputError.
  void sync();
  /// Reads back `num_bytes` from `offset` of a plain file; less at its end. Throws OutputError.
  std::string read(int64_t offset, int64_t num_bytes) const;

  bool is_plain_file() const { return is_plain_file_; }
  /// Bytes in a plain file; bytes written so far to anything else.
  int64_t num_bytes() const { return num_bytes_; }
  const std::string& name() const { return name_; }

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string name_;
  int fd_ = -1;
  bool is_plain_file_ = false;
  int64_t num_bytes_ = 0;
};

}  // namespace augur::score
