#include "kernels/cuda/embed.h"

#include <cstring>

#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

struct Shape {
  int64_t num_rows;  // of the result
  int64_t num_cols;
};

class CudaEmbedTest : public CudaTest, public ::testing::WithParamInterface<Shape> {};

constexpr int64_t kVocab = 37;

// Every value of the table is different, so that a wrong row or column shows.
std::vector<Bf16> different_values(int64_t count) {
  std::vector<Bf16> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = {static_cast<uint16_t>(i % 0x7F00)};
  return values;
}

TEST_P(CudaEmbedTest, TakesTheRowsOfGivenAndOfSampledTokens) {
  const auto [num_rows, num_cols] = GetParam();
  const std::vector<Bf16> table = different_values(kVocab * num_cols);
  const std::vector<int32_t> sampled = {5, 36, 0};
  std::vector<int32_t> ids(num_rows);
  std::vector<int32_t> expected_ids(num_rows);
  for (int64_t i = 0; i < num_rows; ++i) {
    const auto r = static_cast<int32_t>(i % 3);
    ids[i] = i % 2 == 0 ? static_cast<int32_t>(i * 11 % kVocab) : ~r;
    expected_ids[i] = i % 2 == 0 ? ids[i] : sampled[r];
  }
  float* const out = device_array<float>(num_rows * num_cols);
  embed({.table = {reinterpret_cast<const std::byte*>(upload(table)), kVocab, num_cols},
         .token_ids = upload(ids),
         .sampled_ids = upload(sampled),
         .out = dense(out, DType::kF32, num_rows, num_cols)},
        stream());
  const auto actual = download(out, num_rows * num_cols);
  for (int64_t i = 0; i < num_rows * num_cols; ++i) {
    ASSERT_EQ(actual[i], to_float(table[expected_ids[i / num_cols] * num_cols + i % num_cols]))
        << "row " << i / num_cols << ", column " << i % num_cols;
  }
}

template <typename T>
std::vector<T> gathered(const std::vector<T>& x,
                        const std::vector<int32_t>& rows,
                        int64_t num_cols,
                        int64_t stride) {
  std::vector<T> out;
  for (const int32_t row : rows) {
    out.insert(out.end(), x.begin() + row * stride, x.begin() + row * stride + num_cols);
  }
  return out;
}

TEST_P(CudaEmbedTest, GathersRowsOfBothTypesFromAWiderMatrix) {
  const auto [num_rows, num_cols] = GetParam();
  constexpr int64_t kSourceRows = 19;
  std::vector<int32_t> rows(num_rows);
  for (int64_t i = 0; i < num_rows; ++i) rows[i] = static_cast<int32_t>(i * 7 % kSourceRows);
  const int32_t* const device_rows = upload(rows);
  const int64_t stride = num_cols + 8;
  std::vector<float> floats(kSourceRows * stride);
  for (size_t i = 0; i < floats.size(); ++i) floats[i] = static_cast<float>(i);
  float* const out = device_array<float>(num_rows * num_cols);
  gather_rows({.x = {upload(floats), DType::kF32, kSourceRows, num_cols, stride},
               .rows = device_rows,
               .out = dense(out, DType::kF32, num_rows, num_cols)},
              stream());
  EXPECT_EQ(download(out, num_rows * num_cols), gathered(floats, rows, num_cols, stride));

  std::vector<uint16_t> halves(kSourceRows * stride);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  auto* const out_halves = device_array<uint16_t>(num_rows * num_cols);
  gather_rows({.x = {upload(halves), DType::kBF16, kSourceRows, num_cols, stride},
               .rows = device_rows,
               .out = dense(out_halves, DType::kBF16, num_rows, num_cols)},
              stream());
  EXPECT_EQ(download(out_halves, num_rows * num_cols), gathered(halves, rows, num_cols, stride));
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         CudaEmbedTest,
                         ::testing::Values(Shape{0, 64},
                                           Shape{1, 2048},
                                           Shape{3, 33},
                                           Shape{5, 100},
                                           Shape{200, 4096},
                                           Shape{2, 5120}));

}  // namespace
}  // namespace augur::cuda
