// Exponentials without libm, for the kernels' templates.
//
// 2^x = 2^n 2^f with n the nearest whole number and f in [-1/2, 1/2]; the polynomials are minimax
// fits of the relative error there with the constant term held at 1, so that 2^0 is exactly 1.
#pragma once

#include <cstdint>

namespace augur::cpu {

/// 2^x to a relative error of 3e-6 (degree 4: 2.8e-6, and rounding) for x in [-126, 127], which is
/// ample for probabilities about to be rounded to bf16. Below that 2^-126. NaN stays NaN.
/// Make one before a loop: it holds its constants in registers.
template <typename V>
class Exp2Coarse {
 public:
  using F = typename V::F;
  inline F operator()(F x) const {
    // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits: additions only, so that
    // the multipliers are free for the polynomial.
    x = V::max(lowest_, x);
    const F shifted = V::add(x, shift_);
    const F part = V::sub(x, V::sub(shifted, shift_));
    F sum = V::fma(part, c4_, c3_);
    sum = V::fma(part, sum, c2_);
    sum = V::fma(part, sum, c1_);
    sum = V::fma(part, sum, c0_);
    return V::raise_exponent(sum, shifted);
  }

 private:
  F lowest_ = V::in_register(-126.0f);
  F shift_ = V::in_register(12582912.0f);
  F c4_ = V::in_register(9.58285304e-3f);
  F c3_ = V::in_register(5.59064247e-2f);
  F c2_ = V::in_register(2.40240986e-1f);
  F c1_ = V::in_register(6.93124193e-1f);
  F c0_ = V::in_register(1.0f);
};

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
  const Exp2Coarse<V> exp2;
  for (int64_t i = 0; i < num_values; i += 16) {
    const int64_t count = num_values - i < 16 ? num_values - i : 16;
    V::store_first(out + i, exp2(V::load_first(x + i, count)), count);
  }
}

}  // namespace augur::cpu
