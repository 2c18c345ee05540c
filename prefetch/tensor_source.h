// Where a weight lies in a file, and reading it in the form the kernels want.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/bf16.h"
#include "prefetch/file.h"

namespace augur {

/// How a file stores a weight: little-endian, row-major, no gaps.
enum class WeightFormat : uint8_t { kBF16, kF16, kF32 };

constexpr int64_t weight_format_bytes(WeightFormat format) {
  return format == WeightFormat::kF32 ? 4 : 2;
}

/// A matrix in one of a model's files; a vector has one column.
struct TensorSource {
  int32_t file_idx = -1;  // -1: the model has no such weight
  WeightFormat format = WeightFormat::kBF16;
  int64_t offset = 0;  // bytes from the start of the file
  int64_t num_rows = 0;
  int64_t num_cols = 0;

  bool is_present() const { return file_idx >= 0; }
  int64_t num_values() const { return num_rows * num_cols; }
  int64_t num_bytes() const { return num_values() * weight_format_bytes(format); }
};

/// Values as they lie in a file, any alignment, as bf16: F16 and F32 are rounded to nearest, ties
/// to even.
void convert_to_bf16(const std::byte* stored, WeightFormat format, int64_t num_values, Bf16* to);

/// Reads rows [first_row, first_row + count) into `to`. Values stored as F16 or F32 are rounded
/// as convert_to_bf16 does. `scratch` grows to the bytes of those rows once and may be
/// used again. Throws ConfigError as File::read_at.
void read_rows_as_bf16(const File& file,
                       const TensorSource& source,
                       int64_t first_row,
                       int64_t count,
                       Bf16* to,
                       std::vector<std::byte>& scratch);

/// Reads all values, exactly: every stored format is a subset of float32.
std::vector<float> read_as_float(const File& file, const TensorSource& source);

/// IEEE 754 binary16, exactly; NaN stays NaN.
float half_to_float(uint16_t bits);

}  // namespace augur
