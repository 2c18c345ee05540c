// Views of the data that operations read and write. Nothing here owns memory.
#pragma once

#include <cstddef>
#include <cstdint>

namespace augur {

enum class DType : uint8_t { kF32, kBF16, kI32 };

constexpr int64_t dtype_bytes(DType dtype) {
  return dtype == DType::kBF16 ? 2 : 4;
}

/// A row-major matrix in the memory of the backend that uses it. `row_stride` counts elements.
/// A default-made view (data == nullptr) means "absent" where an operation allows that.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t num_rows = 0;
  int64_t num_cols = 0;
  int64_t row_stride = 0;

  template <typename T>
  T* row(int64_t row_idx) const {
    return static_cast<T*>(data) + row_idx * row_stride;
  }
  /// Rows [first, first + count) of the same columns.
  Tensor rows(int64_t first, int64_t count) const {
    auto* start = static_cast<std::byte*>(data) + first * row_stride * dtype_bytes(dtype);
    return {start, dtype, count, num_cols, row_stride};
  }
};

/// A dense view: row_stride == num_cols.
inline Tensor dense(void* data, DType dtype, int64_t num_rows, int64_t num_cols) {
  return {data, dtype, num_rows, num_cols, num_cols};
}

}  // namespace augur
