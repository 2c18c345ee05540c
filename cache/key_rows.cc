#include "cache/key_rows.h"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/cpu/isa.h"
#include "kernels/require.h"

namespace augur {
namespace {

constexpr int kBlockRows = 16;
constexpr int kGroupDims = 4;

struct Scan {
  const int8_t* values;        // [num_blocks][num_groups][16][4]
  const float* inverse_norms;  // [num_blocks][16]
  int num_blocks;
  int num_groups;
  const int8_t* query;  // [num_groups * 4]
};

/// The best cosine of each of 16 lanes, up to the query's norm, and the block it was in.
struct Best {
  float scores[kBlockRows] = {};
  int32_t blocks[kBlockRows];

  Best() { std::fill_n(blocks, kBlockRows, -1); }
};

// No branch depends on the data, so that this becomes a few vector instructions.
[[gnu::always_inline]] inline void keep_best(const Scan& scan,
                                             int block_idx,
                                             const int32_t* dots,
                                             Best& best) {
  const float* inverse_norms = scan.inverse_norms + int64_t{block_idx} * kBlockRows;
  for (int r = 0; r < kBlockRows; ++r) {
    const float score = static_cast<float>(dots[r]) * inverse_norms[r];
    best.blocks[r] = score > best.scores[r] ? block_idx : best.blocks[r];
    best.scores[r] = score > best.scores[r] ? score : best.scores[r];
  }
}

void scan_portable(const Scan& scan, Best& best) {
  const int8_t* rows = scan.values;
  for (int b = 0; b < scan.num_blocks; ++b) {
    int32_t dots[kBlockRows] = {};
    for (int g = 0; g < scan.num_groups; ++g, rows += kBlockRows * kGroupDims) {
      const int8_t* query = scan.query + g * kGroupDims;
      for (int r = 0; r < kBlockRows; ++r) {
        for (int d = 0; d < kGroupDims; ++d) dots[r] += query[d] * rows[r * kGroupDims + d];
      }
    }
    keep_best(scan, b, dots, best);
  }
}

// The multiplication takes one unsigned side: |row|, and the query with the row's signs. Values are
// at most 127, so that the sum of two products fits its 16 bits.
__attribute__((target("avx2"))) void scan_avx2(const Scan& scan, Best& best) {
  const int8_t* next = scan.values;
  for (int b = 0; b < scan.num_blocks; ++b) {
    __m256i sums[2] = {};
    for (int g = 0; g < scan.num_groups; ++g) {
      int32_t four = 0;
      std::memcpy(&four, scan.query + g * kGroupDims, sizeof(four));
      const __m256i query = _mm256_set1_epi32(four);
      for (int half = 0; half < 2; ++half, next += sizeof(__m256i)) {
        const __m256i rows = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(next));
        const __m256i pairs =
            _mm256_maddubs_epi16(_mm256_abs_epi8(rows), _mm256_sign_epi8(query, rows));
        sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
      }
    }
    int32_t dots[kBlockRows];
    std::memcpy(dots, sums, sizeof(sums));
    keep_best(scan, b, dots, best);
  }
}

// The instruction takes one unsigned side: row + 128, which adds 128 times the query's sum. Two
// sums, because each product waits for the one before.
__attribute__((target("avx512f,avx512bw,avx512vnni"))) void scan_vnni(const Scan& scan,
                                                                      Best& best) {
  const __m512i sign_bits = _mm512_set1_epi8(static_cast<char>(0x80));
  int32_t query[Key::kMaxDims / kGroupDims];
  std::memcpy(query, scan.query, static_cast<size_t>(scan.num_groups) * sizeof(int32_t));
  int32_t query_sum = 0;
  for (int i = 0; i < scan.num_groups * kGroupDims; ++i) query_sum += scan.query[i];
  const __m512i correction = _mm512_set1_epi32(-128 * query_sum);
  const int8_t* next = scan.values;
  for (int b = 0; b < scan.num_blocks; ++b) {
    __m512i even = correction;
    __m512i odd = _mm512_setzero_si512();
    int g = 0;
    for (; g + 2 <= scan.num_groups; g += 2, next += 2 * sizeof(__m512i)) {
      const __m512i first = _mm512_xor_si512(_mm512_loadu_si512(next), sign_bits);
      const __m512i second =
          _mm512_xor_si512(_mm512_loadu_si512(next + sizeof(__m512i)), sign_bits);
      even = _mm512_dpbusd_epi32(even, first, _mm512_set1_epi32(query[g]));
      odd = _mm512_dpbusd_epi32(odd, second, _mm512_set1_epi32(query[g + 1]));
    }
    if (g < scan.num_groups) {
      const __m512i last = _mm512_xor_si512(_mm512_loadu_si512(next), sign_bits);
      even = _mm512_dpbusd_epi32(even, last, _mm512_set1_epi32(query[g]));
      next += sizeof(__m512i);
    }
    int32_t dots[kBlockRows];
    _mm512_storeu_si512(dots, _mm512_add_epi32(even, odd));
    keep_best(scan, b, dots, best);
  }
}

KeyRows::Nearest best_row(const Scan& scan, cpu::Isa isa) {
  static const bool has_vnni = __builtin_cpu_supports("avx512vnni") != 0;
  Best best;
  if (isa >= cpu::Isa::kAvx512 && has_vnni) {
    scan_vnni(scan, best);
  } else if (isa >= cpu::Isa::kAvx2) {
    scan_avx2(scan, best);
  } else {
    scan_portable(scan, best);
  }
  KeyRows::Nearest nearest;
  for (int r = 0; r < kBlockRows; ++r) {
    if (best.blocks[r] < 0) continue;
    const int row = best.blocks[r] * kBlockRows + r;
    const float score = best.scores[r];
    if (score > nearest.cosine || (score == nearest.cosine && row < nearest.row)) {
      nearest = {row, score};
    }
  }
  return nearest;
}

}  // namespace

Key Key::of(const float* values, int dims) {
  AUGUR_REQUIRE(dims >= 1 && dims <= kMaxDims, std::to_string(dims) + " dims");
  Key key;
  float largest = 0;
  for (int d = 0; d < dims; ++d) {
    if (!std::isfinite(values[d])) return key;
    largest = std::max(largest, std::abs(values[d]));
  }
  if (largest < 1e-30f) return key;  // 127 over less than this could overflow
  const float scale = 127 / largest;
  int32_t squares = 0;
  for (int d = 0; d < dims; ++d) {
    const auto value = static_cast<int>(std::lrint(values[d] * scale));
    key.values[d] = static_cast<int8_t>(value);
    squares += value * value;
  }
  key.inverse_norm = 1 / std::sqrt(static_cast<float>(squares));
  return key;
}

float cosine(const Key& a, const Key& b) {
  int32_t dot = 0;
  for (int d = 0; d < Key::kMaxDims; ++d) dot += a.values[d] * b.values[d];
  return static_cast<float>(dot) * b.inverse_norm * a.inverse_norm;
}

KeyRows::KeyRows(int num_rows, int dims, cpu::Isa isa)
    : num_rows_(num_rows),
      dims_(dims),
      num_groups_((dims + kGroupDims - 1) / kGroupDims),
      isa_(isa) {
  AUGUR_REQUIRE(num_rows >= 1 && dims >= 1 && dims <= Key::kMaxDims && cpu::has_isa(isa),
                std::to_string(num_rows) + " rows of " + std::to_string(dims));
  const size_t num_blocks = (static_cast<size_t>(num_rows) + kBlockRows - 1) / kBlockRows;
  values_.resize(num_blocks * kBlockRows * num_groups_ * kGroupDims);
  inverse_norms_.resize(num_blocks * kBlockRows);
}

int64_t KeyRows::num_bytes(int num_rows, int dims) {
  const int64_t padded_rows = (int64_t{num_rows} + kBlockRows - 1) / kBlockRows * kBlockRows;
  const int64_t padded_dims = (dims + kGroupDims - 1) / kGroupDims * kGroupDims;
  return padded_rows * (padded_dims + int64_t{sizeof(float)});
}

void KeyRows::set(int row, const Key& key) {
  AUGUR_REQUIRE(row >= 0 && row < num_rows_, "row " + std::to_string(row));
  int8_t* block =
      values_.data() + int64_t{row / kBlockRows} * kBlockRows * num_groups_ * kGroupDims;
  for (int g = 0; g < num_groups_; ++g) {
    std::copy_n(key.values.data() + g * kGroupDims, kGroupDims,
                block + (g * kBlockRows + row % kBlockRows) * kGroupDims);
  }
  inverse_norms_[row] = key.inverse_norm;
}

KeyRows::Nearest KeyRows::nearest(const Key& key, int num_used) const {
  AUGUR_REQUIRE(num_used >= 0 && num_used <= num_rows_, std::to_string(num_used) + " rows");
  // Rows past the used ones in the last block were never set: their inverse norm is 0.
  Nearest found =
      best_row({values_.data(), inverse_norms_.data(), (num_used + kBlockRows - 1) / kBlockRows,
                num_groups_, key.values.data()},
               isa_);
  if (found.row >= num_used) found = {};
  found.cosine *= key.inverse_norm;
  if (key.inverse_norm == 0) found.row = -1;
  return found;
}

}  // namespace augur
