// Files read and written at any offset, every byte accounted for or an error that says where.
//
// Reading is by pread rather than mmap: a file that shrinks or vanishes while it is read is then
// an error with a path and an offset, not a signal that ends the process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace augur {

/// A regular file opened for reading. Threading: read_at may be called from several threads.
class File {
 public:
  /// Follows links. Throws ConfigError when the file is missing, may not be read, or is not a
  /// regular file.
  explicit File(std::filesystem::path path);
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  /// Fills `to` with the bytes [offset, offset + num_bytes). Throws ConfigError with path and
  /// offset when the file ends before that or the device fails.
  void read_at(int64_t offset, void* to, int64_t num_bytes) const;

  const std::filesystem::path& path() const { return path_; }
  int descriptor() const { return descriptor_; }    // still the file's
  int64_t num_bytes() const { return num_bytes_; }  // when it was opened

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  int64_t num_bytes_ = 0;
};

/// A file made anew and written at any offset. Threading: write_at may be called from several
/// threads for ranges that do not overlap.
class OutputFile {
 public:
  /// Replaces what was there. Throws ConfigError when the file cannot be made.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) noexcept;

  /// Throws ConfigError with path, offset and reason ("No space left on device").
  void write_at(int64_t offset, const void* from, int64_t num_bytes) const;
  /// Waits until all that was written is on the device. Throws ConfigError.
  void sync() const;
  /// Closes the file; some file systems report a full disk only now. Throws ConfigError.
  void close();

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// The whole of a small file. Throws ConfigError when it is longer than `max_bytes`.
std::string read_text_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace augur
