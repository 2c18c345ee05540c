// Activations times packed weights, a panel of 16 outputs at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/reference_kernels.h"
#include "kernels/tensor.h"
#include "kernels/weights.h"

namespace augur::cpu {

/// Rows of float32 activations, some of a matrix's where `row_idx` is given.
struct ActivationRows {
  const float* data = nullptr;
  int64_t stride = 0;
  int64_t num_rows = 0;
  const int32_t* row_idx = nullptr;

  const float* row(int64_t i) const {
    return data + (row_idx == nullptr ? i : row_idx[i]) * stride;
  }
};

inline ActivationRows activation_rows(const Tensor& x) {
  return {static_cast<const float*>(x.data), x.row_stride, x.num_rows};
}

constexpr int64_t num_panels(const PackedMatrix& weight) {
  return (weight.num_rows + kLanes - 1) / kLanes;
}

/// Calls sink(i, first_output, count, values) for each row i of x: values[o], o < count, is the
/// product of row i with row first_output + o of `weight`. `panel` holds
/// panel_floats(weight.num_cols) floats of scratch.
template <typename Sink>
void multiply_panel(const PackedMatrix& weight,
                    int64_t panel_idx,
                    const ActivationRows& x,
                    float* panel,
                    Sink&& sink) {
  const ReferenceKernels& kernels = reference_kernels();
  load_panel(weight, panel_idx, panel);
  const int64_t first_output = panel_idx * kLanes;
  const int64_t count = std::min(kLanes, weight.num_rows - first_output);
  for (int64_t first = 0; first < x.num_rows; first += kProductRows) {
    const int64_t num_rows = std::min(kProductRows, x.num_rows - first);
    const float* rows[kProductRows];
    for (int64_t r = 0; r < num_rows; ++r) rows[r] = x.row(first + r);
    alignas(64) float products[kProductRows * kLanes];
    kernels.panel_product(panel, weight.num_cols, rows, num_rows, products);
    for (int64_t r = 0; r < num_rows; ++r) {
      sink(first + r, first_output, count, products + r * kLanes);
    }
  }
}

}  // namespace augur::cpu
