// What kernels/ops.h promises, checked of any backend against the reference operations.
//
// A test program links augur_ops_contract and defines backends(); every check then runs for each.
// Checks are of two kinds: values within a tolerance of the reference, and batch invariance, bit
// for bit, of the backend against itself: rows alone and together, sequences alone and together,
// prompts whole and in chunks, experts in other slots.
// Inputs are multiples of bf16 steps, so that every backend starts from the same values.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace augur::contract {

struct Backend {
  std::string name;  // letters, digits and underscores
  std::function<std::unique_ptr<Ops>()> make;
  // Errors relative to the larger of the expected value and the root mean square of its row.
  float product_tolerance = 1e-5f;     // float32 sums of exact inputs
  float activation_tolerance = 1e-5f;  // where something is rounded to the activation dtype
  // Whether the bits of a row may depend on how many rows share the call.
  bool depends_on_row_count = false;
  int head_dim_multiple = 1;  // what heads must be a multiple of
};

/// Defined by the program; lists only backends that this machine can run.
std::vector<Backend> backends();

/// `count` numbers of [-1, 1], exact in bf16.
std::vector<float> random_values(int64_t count, uint64_t seed);

/// A permutation of [0, count).
std::vector<int32_t> random_order(int64_t count, uint64_t seed);

/// Compares row by row, relative to max(|expected|, rms of the expected row).
::testing::AssertionResult rows_are_near(const std::vector<float>& actual,
                                         const std::vector<float>& expected,
                                         int64_t num_cols,
                                         float tolerance);

/// Bit for bit.
::testing::AssertionResult are_identical(std::span<const float> actual,
                                         std::span<const float> expected);

/// Limits that every check stays within.
StepLimits contract_limits();

/// Owns what one check puts into the memory of `ops`.
class Arena {
 public:
  explicit Arena(Ops& ops) : ops_(ops) {}

  Ops& ops() const { return ops_; }

  template <typename T>
  T* copy(std::span<const T> values) {
    return reinterpret_cast<T*>(
        upload(values.data(), static_cast<int64_t>(values.size() * sizeof(T))));
  }
  template <typename T>
  T* copy(const std::vector<T>& values) {
    return copy(std::span<const T>(values));
  }
  std::byte* zeros(int64_t num_bytes);

  /// The values in `dtype`; rows lie `padding` elements apart.
  Tensor tensor(std::span<const float> values,
                int64_t num_rows,
                int64_t num_cols,
                DType dtype,
                int64_t padding = 0);
  Tensor activations(std::span<const float> values, int64_t num_rows, int64_t num_cols) {
    return tensor(values, num_rows, num_cols, ops_.activation_dtype());
  }
  /// A result to be: filled with a value that no check expects.
  Tensor result(int64_t num_rows, int64_t num_cols, DType dtype, int64_t padding = 0);

  /// A [num_rows, num_cols] matrix, packed in a few pieces.
  PackedMatrix pack(MatrixUse use,
                    std::span<const float> values,
                    int64_t num_rows,
                    int64_t num_cols);
  void pack_into(MatrixUse use,
                 std::byte* to,
                 std::span<const float> values,
                 int64_t num_rows,
                 int64_t num_cols);

  std::vector<float> read(const Tensor& tensor);
  template <typename T>
  std::vector<T> read(const T* from, int64_t count) {
    std::vector<T> values(count);
    ops_.download(values.data(), from, count * static_cast<int64_t>(sizeof(T)));
    ops_.synchronize();
    return values;
  }

 private:
  std::byte* upload(const void* data, int64_t num_bytes);

  Ops& ops_;
  std::vector<Buffer> buffers_;
};

/// The backend under test and the reference, both reserved for contract_limits().
class OpsContract : public ::testing::TestWithParam<Backend> {
 protected:
  void SetUp() override;

  /// For rows of a large call against the same rows of a smaller one: bit for bit, or near where
  /// the backend's bits depend on the number of rows.
  static ::testing::AssertionResult are_same_rows(std::span<const float> actual,
                                                  std::span<const float> expected,
                                                  int64_t num_cols);

  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Ops> reference_;
};

}  // namespace augur::contract
