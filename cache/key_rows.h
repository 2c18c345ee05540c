// Short int8 vectors, and which of them points most nearly where a given one does.
//
// Rows lie in blocks of 16, a block's values in groups of four dimensions: [block][dims /
// 4][16][4]. One vector register then holds the same four dimensions of 16 rows, which is what the
// instructions for int8 products take, and the sums of 16 rows need not be added across lanes.
// Threading: nearest() may be called from several threads while nobody calls set().
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/cpu/isa.h"

namespace augur {

/// A direction: values scaled so that the largest is 127, and one over their length. A vector of
/// zeros, or one with values that are not finite, has none: its inverse_norm is 0.
struct Key {
  static constexpr int kMaxDims = 64;

  std::array<int8_t, kMaxDims> values = {};  // zero past the dims
  float inverse_norm = 0;

  /// Quantises `dims` values. Requires dims <= kMaxDims.
  static Key of(const float* values, int dims);
};

/// 0 where either has no direction.
float cosine(const Key& a, const Key& b);

class KeyRows {
 public:
  /// Requires num_rows >= 1, 1 <= dims <= Key::kMaxDims and that the machine has `isa`, which does
  /// not change a result.
  KeyRows(int num_rows, int dims, cpu::Isa isa = cpu::best_isa());

  static int64_t num_bytes(int num_rows, int dims);

  void set(int row, const Key& key);

  struct Nearest {
    int row = -1;
    float cosine = 0;
  };
  /// Among the first `num_used` rows the one with the largest cosine, the lower row among equals;
  /// row -1 when no cosine is above zero. Requires that the rows from there on were never set.
  Nearest nearest(const Key& key, int num_used) const;

  int num_rows() const { return num_rows_; }
  int dims() const { return dims_; }

 private:
  int num_rows_;
  int dims_;
  int num_groups_;  // of four dimensions
  cpu::Isa isa_;
  std::vector<int8_t> values_;        // see the top
  std::vector<float> inverse_norms_;  // whole blocks; 0 where nothing was set
};

}  // namespace augur
