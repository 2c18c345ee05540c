// Random activations and packed weights, and plain loops over them, for the tests of the CPU
// matrix kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/buffer.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/tile_layout.h"
#include "kernels/weights.h"

namespace augur::cpu {

inline std::vector<Bf16> random_bf16(int64_t count, uint32_t seed, float scale = 1) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-scale, scale);
  std::vector<Bf16> values(count);
  for (Bf16& value : values) value = to_bf16(uniform(engine));
  return values;
}

/// A weight matrix row-major and packed.
struct TestMatrix {
  TestMatrix(int64_t rows, int64_t cols, uint32_t seed)
      : num_rows(rows),
        num_cols(cols),
        values(random_bf16(rows * cols, seed)),
        packed(allocate_host(tiled_bytes(rows, cols))) {
    pack_rows_tiled(packed.data(), rows, cols, 0, rows, values.data());
  }
  PackedMatrix view() const { return {packed.data(), num_rows, num_cols}; }
  float at(int64_t row, int64_t col) const { return to_float(values[row * num_cols + col]); }

  int64_t num_rows;
  int64_t num_cols;
  std::vector<Bf16> values;
  Buffer packed;
};

/// A result and the sum of the magnitudes that went into it, which bounds its rounding error.
struct Expected {
  double value = 0;
  double magnitude = 0;
};

template <typename Row>
Expected dot(const TestMatrix& weights, int64_t row, const Row& x) {
  Expected sum;
  for (int64_t col = 0; col < weights.num_cols; ++col) {
    const double product = static_cast<double>(weights.at(row, col)) * x(col);
    sum.value += product;
    sum.magnitude += std::abs(product);
  }
  return sum;
}

struct TestMlp {
  TestMlp(int64_t hidden_size, int64_t intermediate_size, uint32_t seed)
      : gate(intermediate_size, hidden_size, seed),
        up(intermediate_size, hidden_size, seed + 1),
        down(hidden_size, intermediate_size, seed + 2) {}
  MlpWeights view() const { return {gate.view(), up.view(), down.view()}; }

  /// down(silu(gate x) * (up x)) with the gated values rounded to bf16.
  std::vector<Expected> apply(const Bf16* x) const {
    const auto x_at = [&](int64_t i) { return static_cast<double>(to_float(x[i])); };
    std::vector<double> gated(gate.num_rows);
    for (int64_t i = 0; i < gate.num_rows; ++i) {
      const double g = dot(gate, i, x_at).value;
      const double value = g / (1 + std::exp(-g)) * dot(up, i, x_at).value;
      gated[i] = to_float(to_bf16(static_cast<float>(value)));
    }
    std::vector<Expected> out(down.num_rows);
    for (int64_t i = 0; i < down.num_rows; ++i) {
      out[i] = dot(down, i, [&](int64_t k) { return gated[k]; });
    }
    return out;
  }

  TestMatrix gate;
  TestMatrix up;
  TestMatrix down;
};

/// float32 sums differ from exact ones by a few units of 2^-24 per magnitude.
inline double f32_tolerance(const Expected& expected) {
  return 1e-6 * expected.magnitude + 1e-30;
}
/// A gated value near the middle of two bf16 numbers may round either way: 2^-8 of each.
inline double gated_tolerance(const Expected& expected) {
  return expected.magnitude / 256 + 1e-6;
}

}  // namespace augur::cpu
