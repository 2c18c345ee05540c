// Writes a safetensors file: first what it will hold, then the data in any order.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "engine/model/safetensors.h"
#include "prefetch/file.h"

namespace augur {

/// Threading: write may be called from several threads for ranges that do not overlap.
class SafetensorsWriter {
 public:
  /// Writes the header. Of each tensor name, dtype and shape are read; the data lies in the order
  /// given. Throws ConfigError when the file cannot be written. Requires names that differ.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorInfo> tensors);

  /// Writes `num_bytes` at `byte_in_tensor`. Throws ConfigError ("No space left on device").
  void write(size_t tensor_idx, int64_t byte_in_tensor, const void* data, int64_t num_bytes);
  /// Writes the whole tensor.
  void write(size_t tensor_idx, const void* data);
  /// Closes the file. Throws ConfigError; requires that every byte has been written.
  void finish();

  /// With offset and num_bytes filled in.
  std::span<const TensorInfo> tensors() const { return tensors_; }

 private:
  std::vector<TensorInfo> tensors_;
  OutputFile file_;
  int64_t bytes_wanted_ = 0;
  std::atomic<int64_t> bytes_written_{0};
};

}  // namespace augur
