#include "kernels/cpu/row_math.h"

#include <algorithm>
#include <limits>
#include <string>

#include "kernels/cpu/lanes.h"
#include "kernels/require.h"

namespace augur::cpu {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();
// 32 additions per lane before a block's sum goes to double: the rounding of a block stays below
// 32 * 2^-24 of it, typically a tenth of that.
constexpr int64_t kSumBlock = 512;

// exp(t) = 2^n exp(r), n = round(t / ln 2), |r| <= ln 2 / 2. ln 2 is subtracted in two parts, the
// first short enough that n times it is exact. exp(r) = 1 + r + r^2 q(r), q interpolated at the
// five Chebyshev nodes of the interval: relative error 1e-8, far below float32's rounding.
AUGUR_INLINE void exp_lanes(const FloatLanes& t, FloatLanes& result) {
  constexpr float kLowest = -87.3f;      // exp of less is hardly above the smallest normal float
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLog2E = 1.44269502f;
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -0.000212194442f;
  const IntLanes in_range = t >= kLowest;  // false for NaN
  const FloatLanes zero = {};
  const FloatLanes clamped = in_range ? t : zero;
  const FloatLanes shifted = clamped * kLog2E + kRound;
  const FloatLanes n = shifted - kRound;
  const FloatLanes r = (clamped - n * kLn2High) - n * kLn2Low;
  FloatLanes q = r * 0.00139261759f + 0.00836317334f;
  q = q * r + 0.0416665561f;
  q = q * r + 0.166665778f;
  q = q * r + 0.5f;
  const FloatLanes exp_r = (q * r) * r + r + 1.0f;
  // The low bits of `shifted` are n: moved to the exponent they make 2^n.
  const UintLanes exponent = (reinterpret_cast<UintLanes>(shifted) << 23) + 0x3f800000u;
  const FloatLanes value = exp_r * reinterpret_cast<FloatLanes>(exponent);
  result = in_range ? value : zero;
}

AUGUR_INLINE float max_value_body(const float* x, int64_t n) {
  FloatLanes best, lanes;
  fill_lanes(kNegativeInfinity, best);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load_lanes(x + i, lanes);
    best = lanes > best ? lanes : best;
  }
  if (i < n) {
    load_some_lanes(x + i, n - i, kNegativeInfinity, lanes);
    best = lanes > best ? lanes : best;
  }
  float result = kNegativeInfinity;
  for (int64_t lane = 0; lane < kLanes; ++lane) result = std::max(result, best[lane]);
  return result;
}

AUGUR_INLINE double sum_exp_body(const float* x, int64_t n, float shift) {
  double total = 0;
  FloatLanes lanes, value;
  for (int64_t start = 0; start < n; start += kSumBlock) {
    const int64_t end = std::min(start + kSumBlock, n);
    FloatLanes sums = {};
    int64_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      load_lanes(x + i, lanes);
      exp_lanes(lanes - shift, value);
      sums += value;
    }
    if (i < end) {
      load_some_lanes(x + i, end - i, kNegativeInfinity, lanes);
      exp_lanes(lanes - shift, value);
      sums += value;
    }
    double block_sum = 0;
    for (int64_t lane = 0; lane < kLanes; ++lane) block_sum += sums[lane];
    total += block_sum;
  }
  return total;
}

AUGUR_INLINE void exp_scaled_body(const float* x, int64_t n, float shift, float scale, float* out) {
  FloatLanes lanes, value;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    load_lanes(x + i, lanes);
    exp_lanes((lanes - shift) * scale, value);
    store_lanes(value, out + i);
  }
  if (i < n) {
    load_some_lanes(x + i, n - i, kNegativeInfinity, lanes);
    exp_lanes((lanes - shift) * scale, value);
    std::memcpy(out + i, &value, static_cast<size_t>(n - i) * sizeof(float));
  }
}

AUGUR_DEFINE_FOR_EACH_ISA(float, max_value, (const float* x, int64_t n), (x, n))
AUGUR_DEFINE_FOR_EACH_ISA(double, sum_exp, (const float* x, int64_t n, float shift), (x, n, shift))
AUGUR_DEFINE_FOR_EACH_ISA(void,
                          exp_scaled,
                          (const float* x, int64_t n, float shift, float scale, float* out),
                          (x, n, shift, scale, out))

constexpr RowMath kPortableMath = {max_value_portable, sum_exp_portable, exp_scaled_portable};
constexpr RowMath kAvx2Math = {max_value_avx2, sum_exp_avx2, exp_scaled_avx2};
constexpr RowMath kAvx512Math = {max_value_avx512, sum_exp_avx512, exp_scaled_avx512};

}  // namespace

const RowMath& row_math(Isa isa) {
  AUGUR_REQUIRE(has_isa(isa), "this machine lacks " + std::string(isa_name(isa)));
  switch (isa) {
    case Isa::kPortable:
      return kPortableMath;
    case Isa::kAvx2:
      return kAvx2Math;
    case Isa::kAvx512:
    case Isa::kAmx:
      return kAvx512Math;
  }
  return kPortableMath;
}

}  // namespace augur::cpu
