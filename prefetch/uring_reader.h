// Reads through an io_uring.
#pragma once

#include <liburing.h>

#include <string_view>
#include <vector>

#include "prefetch/block_reader.h"

namespace augur {

class UringReader final : public BlockReader {
 public:
  /// Throws std::system_error with the kernel's reason where there is no io_uring for us.
  explicit UringReader(int max_reads);
  ~UringReader() override;
  UringReader(const UringReader&) = delete;
  UringReader& operator=(const UringReader&) = delete;

  std::string_view name() const override { return "io_uring"; }
  void begin(const BlockRead& read) override;
  std::span<const BlockReadEnd> wait(bool blocks) override;
  void wake() override;

 private:
  void watch_wakes();
  bool collect();

  io_uring ring_;
  int wake_descriptor_ = -1;  // an eventfd the ring polls
  std::vector<BlockReadEnd> ended_;
};

}  // namespace augur
