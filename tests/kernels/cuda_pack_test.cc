#include "kernels/cuda/pack.h"

#include <cmath>
#include <cstring>

#include "kernels/cuda/mlp_layout.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

struct Shape {
  int64_t num_rows;
  int64_t num_cols;
};

class CudaPackTest : public CudaTest, public ::testing::WithParamInterface<Shape> {};

// Every value of a matrix is different, so a value in the wrong place shows.
TEST_P(CudaPackTest, PutsEveryValueWhereTheLayoutSaysForRowsInPieces) {
  const auto [num_rows, num_cols] = GetParam();
  std::vector<Bf16> matrix(num_rows * num_cols);
  for (size_t i = 0; i < matrix.size(); ++i) {
    const auto bits = static_cast<uint16_t>(i + 1);
    std::memcpy(static_cast<void*>(&matrix[i]), &bits, 2);
  }
  const int64_t num_bytes = tiled_matrix_bytes(num_rows, num_cols);
  const std::vector<std::byte> zeros(num_bytes);
  std::byte* const packed = upload(zeros);
  const Bf16* const rows = upload(matrix);
  const int64_t middle = num_rows / 3;
  pack_tiled(packed, num_rows, num_cols, 0, middle, rows, stream());
  pack_tiled(packed, num_rows, num_cols, middle, num_rows - middle, rows + middle * num_cols,
             stream());
  const std::vector<std::byte> actual = download(packed, num_bytes);
  std::vector<std::byte> expected(num_bytes);
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t col = 0; col < num_cols; ++col) {
      std::memcpy(&expected[tiled_offset(row, col, num_cols)], &matrix[row * num_cols + col], 2);
    }
  }
  EXPECT_EQ(actual, expected);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes,
    CudaPackTest,
    ::testing::Values(Shape{1, 1}, Shape{64, 64}, Shape{65, 63}, Shape{130, 200}));

class CudaFillTest : public CudaTest {};

TEST_F(CudaFillTest, DrawsEvenlyWithinTheAmplitudeAndTheSameForTheSameSeed) {
  constexpr int64_t kCount = 10'001;
  Bf16* const first = device_array<Bf16>(kCount);
  Bf16* const second = device_array<Bf16>(kCount);
  fill_random(reinterpret_cast<std::byte*>(first), kCount * 2, 0.5f, 7, stream());
  fill_random(reinterpret_cast<std::byte*>(second), kCount * 2, 0.5f, 7, stream());
  const auto values = download(first, kCount);
  const auto again = download(second, kCount);
  double sum = 0;
  double sum_of_squares = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    const float value = to_float(values[i]);
    ASSERT_EQ(value, to_float(again[i]));
    ASSERT_LE(std::abs(value), 0.5f);
    sum += value;
    sum_of_squares += value * value;
  }
  EXPECT_NEAR(sum / kCount, 0, 0.02);
  EXPECT_NEAR(sum_of_squares / kCount, 0.25 / 3, 0.005);
}

}  // namespace
}  // namespace augur::cuda
