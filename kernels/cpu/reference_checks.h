// Requirements that the reference operations check of their arguments.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/require.h"
#include "kernels/tensor.h"

namespace augur::cpu {

/// A float32 matrix of this shape. `name` is what the message calls it.
inline void require_f32(const Tensor& tensor,
                        int64_t num_rows,
                        int64_t num_cols,
                        const char* name) {
  const auto describe = [&] {
    return std::string(name) + " is " + std::to_string(tensor.num_rows) + " x " +
           std::to_string(tensor.num_cols) + ", expected float32 of " + std::to_string(num_rows) +
           " x " + std::to_string(num_cols);
  };
  AUGUR_REQUIRE(tensor.dtype == DType::kF32, describe());
  AUGUR_REQUIRE(tensor.num_rows == num_rows && tensor.num_cols == num_cols, describe());
  AUGUR_REQUIRE(tensor.row_stride >= tensor.num_cols || tensor.num_rows <= 1, describe());
  AUGUR_REQUIRE(tensor.data != nullptr || num_rows == 0 || num_cols == 0, describe());
}

/// values[0, count) all in [0, end).
template <typename T>
void require_in_range(const T* values, int64_t count, int64_t end, const char* name) {
  for (int64_t i = 0; i < count; ++i) {
    AUGUR_REQUIRE(values[i] >= 0 && values[i] < end,
                  std::string(name) + " " + std::to_string(i) + " is " + std::to_string(values[i]) +
                      ", expected less than " + std::to_string(end));
  }
}

}  // namespace augur::cpu
