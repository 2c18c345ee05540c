#include "prefetch/tensor_source.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/temp_folder.h"

namespace augur {
namespace {

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

TEST(HalfToFloat, IsExactForEveryFiniteValue) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const int exponent = bits >> 10 & 0x1f;
    const int fraction = bits & 0x3ff;
    if (exponent == 0x1f) continue;
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    const double expected = (bits & 0x8000) != 0 ? -magnitude : magnitude;
    ASSERT_EQ(half_to_float(static_cast<uint16_t>(bits)), expected) << bits;
  }
  EXPECT_TRUE(std::signbit(half_to_float(0x8000)));
}

TEST(HalfToFloat, KeepsInfinityAndNan) {
  EXPECT_EQ(half_to_float(0x7c00), std::numeric_limits<float>::infinity());
  EXPECT_EQ(half_to_float(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(half_to_float(0x7e00)));
  EXPECT_TRUE(std::isnan(half_to_float(0x7c01)));
}

TEST(ReadRows, TakesBf16AsItIs) {
  const TempFolder folder;
  const File file(
      folder.write("w", "pad" + bytes_of(std::vector<uint16_t>{0x3f80, 1, 2, 3, 4, 0xffff})));
  const TensorSource source = {0, WeightFormat::kBF16, 3, 3, 2};
  std::vector<Bf16> rows(4);
  std::vector<std::byte> scratch;
  read_rows_as_bf16(file, source, 1, 2, rows.data(), scratch);
  EXPECT_EQ(rows[0].bits, 2);
  EXPECT_EQ(rows[3].bits, 0xffff);
  EXPECT_TRUE(scratch.empty());
}

TEST(ReadRows, RoundsFloat32ToNearestTiesToEven) {
  const TempFolder folder;
  const auto value = [](uint32_t bits) { return std::bit_cast<float>(bits); };
  const File file(folder.write(
      "w", bytes_of(std::vector<float>{value(0x3f800000), value(0x3f808000), value(0x3f818000),
                                       value(0x3f808001), value(0xbf80ffff), value(0x00000001)})));
  const TensorSource source = {0, WeightFormat::kF32, 0, 2, 3};
  std::vector<Bf16> rows(6);
  std::vector<std::byte> scratch;
  read_rows_as_bf16(file, source, 0, 2, rows.data(), scratch);
  const std::vector<uint16_t> expected = {0x3f80, 0x3f80, 0x3f82, 0x3f81, 0xbf81, 0x0000};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(rows[i].bits, expected[i]) << i;
}

TEST(ReadRows, RoundsFloat16) {
  const TempFolder folder;
  // 1, 1 + 2^-10 (rounds down), 65504 (rounds up to 2^16), the smallest subnormal.
  const File file(
      folder.write("w", bytes_of(std::vector<uint16_t>{0x3c00, 0x3c01, 0x7bff, 0x0001})));
  std::vector<Bf16> rows(4);
  std::vector<std::byte> scratch;
  read_rows_as_bf16(file, {0, WeightFormat::kF16, 0, 1, 4}, 0, 1, rows.data(), scratch);
  EXPECT_EQ(to_float(rows[0]), 1.0f);
  EXPECT_EQ(to_float(rows[1]), 1.0f);
  EXPECT_EQ(to_float(rows[2]), 65536.0f);
  EXPECT_EQ(to_float(rows[3]), 0x1p-24f);
}

TEST(ReadRows, RequiresRowsThatTheMatrixHas) {
  const TempFolder folder;
  const File file(folder.write("w", std::string(64, '\0')));
  std::vector<Bf16> rows(64);
  std::vector<std::byte> scratch;
  const TensorSource source = {0, WeightFormat::kBF16, 0, 4, 4};
  EXPECT_THROW(read_rows_as_bf16(file, source, 3, 2, rows.data(), scratch), std::logic_error);
  EXPECT_THROW(read_rows_as_bf16(file, source, -1, 1, rows.data(), scratch), std::logic_error);
}

TEST(ReadAsFloat, IsExactForEveryFormat) {
  const TempFolder folder;
  const File f32(folder.write("f32", bytes_of(std::vector<float>{0.1f, -3e38f})));
  const File f16(folder.write("f16", bytes_of(std::vector<uint16_t>{0x3c01, 0xc000})));
  const File bf16(folder.write("bf16", bytes_of(std::vector<uint16_t>{0x3f81, 0xc000})));
  EXPECT_EQ(read_as_float(f32, {0, WeightFormat::kF32, 0, 2, 1}),
            (std::vector<float>{0.1f, -3e38f}));
  EXPECT_EQ(read_as_float(f16, {0, WeightFormat::kF16, 0, 2, 1}),
            (std::vector<float>{1.0f + 0x1p-10f, -2.0f}));
  EXPECT_EQ(read_as_float(bf16, {0, WeightFormat::kBF16, 0, 2, 1}),
            (std::vector<float>{1.0f + 0x1p-7f, -2.0f}));
}

}  // namespace
}  // namespace augur
