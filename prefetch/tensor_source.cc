#include "prefetch/tensor_source.h"

#include <bit>
#include <cstring>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

float load_float(const std::byte* from, WeightFormat format) {
  switch (format) {
    case WeightFormat::kBF16:
      return to_float(Bf16{load<uint16_t>(from)});
    case WeightFormat::kF16:
      return half_to_float(load<uint16_t>(from));
    case WeightFormat::kF32:
      return load<float>(from);
  }
  return 0;
}

}  // namespace

float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: fraction * 2^-24
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide_exponent = exponent == 0x1fu ? 0xffu : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide_exponent << 23 | fraction << 13);
}

void convert_to_bf16(const std::byte* stored, WeightFormat format, int64_t num_values, Bf16* to) {
  switch (format) {
    case WeightFormat::kBF16:
      std::memcpy(to, stored, static_cast<size_t>(num_values) * sizeof(Bf16));
      return;
    case WeightFormat::kF16:
      for (int64_t i = 0; i < num_values; ++i) {
        to[i] = to_bf16(half_to_float(load<uint16_t>(stored + i * 2)));
      }
      return;
    case WeightFormat::kF32:
      for (int64_t i = 0; i < num_values; ++i) to[i] = to_bf16(load<float>(stored + i * 4));
      return;
  }
}

void read_rows_as_bf16(const File& file,
                       const TensorSource& source,
                       int64_t first_row,
                       int64_t count,
                       Bf16* to,
                       std::vector<std::byte>& scratch) {
  AUGUR_REQUIRE(first_row >= 0 && count >= 0 && first_row + count <= source.num_rows,
                "rows " + std::to_string(first_row) + " + " + std::to_string(count) + " of " +
                    std::to_string(source.num_rows));
  const int64_t value_bytes = weight_format_bytes(source.format);
  const int64_t offset = source.offset + first_row * source.num_cols * value_bytes;
  const int64_t num_values = count * source.num_cols;
  if (source.format == WeightFormat::kBF16) {
    file.read_at(offset, to, num_values * value_bytes);
    return;
  }
  if (static_cast<int64_t>(scratch.size()) < num_values * value_bytes) {
    scratch.resize(static_cast<size_t>(num_values * value_bytes));
  }
  file.read_at(offset, scratch.data(), num_values * value_bytes);
  convert_to_bf16(scratch.data(), source.format, num_values, to);
}

std::vector<float> read_as_float(const File& file, const TensorSource& source) {
  std::vector<std::byte> stored(static_cast<size_t>(source.num_bytes()));
  file.read_at(source.offset, stored.data(), source.num_bytes());
  std::vector<float> values(static_cast<size_t>(source.num_values()));
  const int64_t value_bytes = weight_format_bytes(source.format);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = load_float(stored.data() + static_cast<int64_t>(i) * value_bytes, source.format);
  }
  return values;
}

}  // namespace augur
