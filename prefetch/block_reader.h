// Several reads of files under way at once: what the Loader asks of the operating system.
//
// Two implementations: io_uring (uring_reader.h), and pread on threads of its own where io_uring is
// refused, as container runtimes often do. Tests put a third one between to delay reads or let them
// fail.
// Threading: begin and wait are called by one thread, wake by any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

namespace augur {

struct BlockRead {
  int descriptor = -1;
  const std::filesystem::path* path = nullptr;  // of the descriptor's file, for people and tests
  int64_t offset = 0;
  int64_t num_bytes = 0;
  std::byte* to = nullptr;  // the reader's until the read is reported
  int tag = 0;              // to know it by, from 0 on; reads under way have different ones
};

struct BlockReadEnd {
  int tag = 0;
  int64_t num_bytes = 0;  // that were read; -errno when it failed
};

class BlockReader {
 public:
  /// Requires that no read is under way.
  virtual ~BlockReader() = default;
  /// "io_uring", "pread".
  virtual std::string_view name() const = 0;
  /// Starts a read; never waits for it. Requires fewer under way than the reader was made for.
  virtual void begin(const BlockRead& read) = 0;
  /// Reads that ended since the last call; valid until the next. With `blocks` waits until there
  /// is one or wake() was called since the last wait.
  virtual std::span<const BlockReadEnd> wait(bool blocks) = 0;
  virtual void wake() = 0;
};

enum class ReadMethod : uint8_t {
  kAuto,  // io_uring where the system has it and allows it, else pread
  kIoUring,
  kPread,
};

/// A reader of at most `max_reads` reads at once. Throws ConfigError when kIoUring is refused.
std::unique_ptr<BlockReader> make_block_reader(ReadMethod method, int max_reads);

}  // namespace augur
