// Exponentials without libm, for the kernels' templates.
//
// 2^x = 2^n 2^f with n the nearest whole number and f in [-1/2, 1/2]; the polynomials are minimax
// fits of the relative error there with the constant term held at 1, so that 2^0 is exactly 1.
#pragma once

#include <cstdint>

namespace augur::cpu {

/// 2^x to a relative error of 3e-6 (degree 4: 2.8e-6, and rounding) for x in [-126, 127], which is
/// ample for probabilities about to be rounded to bf16. Below that 2^-126. NaN stays NaN.
template <typename V>
inline typename V::F exp2_coarse(typename V::F x) {
  // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits: additions only, so that
  // the multipliers are free for the polynomial.
  const typename V::F shift = V::set1(12582912.0f);
  x = V::max(V::set1(-126.0f), x);
  const typename V::F shifted = V::add(x, shift);
  const typename V::F part = V::sub(x, V::sub(shifted, shift));
  typename V::F sum = V::fma(part, V::set1(9.58285304e-3f), V::set1(5.59064247e-2f));
  sum = V::fma(part, sum, V::set1(2.40240986e-1f));
  sum = V::fma(part, sum, V::set1(6.93124193e-1f));
  sum = V::fma(part, sum, V::set1(1.0f));
  return V::raise_exponent(sum, shifted);
}

/// e^x to about 2 units in the last place for |x| <= 87 (degree 6: 3e-9). Arguments are held to
/// [-100, 88]. NaN stays NaN.
template <typename V>
inline typename V::F exp_fine(typename V::F x) {
  // ln 2 in two parts: the first has trailing zeros, so that its multiples are exact.
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  x = V::max(V::set1(-100.0f), x);
  x = V::sub(V::zero(), V::max(V::set1(-88.0f), V::sub(V::zero(), x)));
  const typename V::F whole = V::round(V::mul(x, V::set1(1.44269504f)));
  typename V::F part = V::fma(whole, V::set1(-kLn2High), x);
  part = V::fma(whole, V::set1(-kLn2Low), part);
  typename V::F sum = V::fma(part, V::set1(1.38146128e-3f), V::set1(8.36870983e-3f));
  sum = V::fma(part, sum, V::set1(4.16683874e-2f));
  sum = V::fma(part, sum, V::set1(1.66665207e-1f));
  sum = V::fma(part, sum, V::set1(4.99999935e-1f));
  sum = V::fma(part, sum, V::set1(1.0f));
  sum = V::fma(part, sum, V::set1(1.0f));
  return V::scale_exp2(sum, whole);
}

template <typename V>
void exp2_values(const float* x, int64_t num_values, float* out) {
  for (int64_t i = 0; i < num_values; i += 16) {
    const int64_t count = num_values - i < 16 ? num_values - i : 16;
    V::store_first(out + i, exp2_coarse<V>(V::load_first(x + i, count)), count);
  }
}

}  // namespace augur::cpu
