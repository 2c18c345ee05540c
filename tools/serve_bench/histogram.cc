#include "tools/serve_bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace augur::serve_bench {
namespace {

// Below 2048 us a bucket is one microsecond; above, each octave has 1024 of them.
constexpr int kBits = 10;

size_t bucket_of(uint64_t value) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(value)) - (kBits + 1));
  return (static_cast<size_t>(shift) << kBits) + static_cast<size_t>(value >> shift);
}

// The middle of what a bucket holds.
double middle_of(size_t bucket) {
  const size_t octave = bucket >> kBits;
  const size_t shift = octave == 0 ? 0 : octave - 1;
  const auto low = static_cast<double>(bucket - (shift << kBits));
  const double width = std::ldexp(1.0, static_cast<int>(shift));
  return low * width + (width - 1) / 2;
}

}  // namespace

void Histogram::add(int64_t value_us) {
  value_us = std::max<int64_t>(value_us, 0);
  const size_t bucket = bucket_of(static_cast<uint64_t>(value_us));
  if (bucket >= buckets_.size()) buckets_.resize(bucket + 1);
  ++buckets_[bucket];
  ++count_;
  const auto value = static_cast<double>(value_us);
  sum_us_ += value;
  sum_squares_ += value * value;
  max_us_ = std::max(max_us_, value_us);
}

double Histogram::mean_us() const {
  return count_ == 0 ? 0 : sum_us_ / static_cast<double>(count_);
}

double Histogram::std_us() const {
  if (count_ == 0) return 0;
  const double mean = mean_us();
  return std::sqrt(std::max(0.0, sum_squares_ / static_cast<double>(count_) - mean * mean));
}

double Histogram::percentile_us(double percent) const {
  if (count_ == 0) return 0;
  const double place = percent / 100 * static_cast<double>(count_ - 1);
  const auto below = static_cast<int64_t>(place);
  const double value = value_at(below);
  const double share = place - static_cast<double>(below);
  return share == 0 ? value : value + share * (value_at(below + 1) - value);
}

double Histogram::value_at(int64_t rank) const {
  int64_t num_before = 0;
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    num_before += buckets_[bucket];
    if (num_before > rank) return std::min(middle_of(bucket), static_cast<double>(max_us_));
  }
  return static_cast<double>(max_us_);
}

}  // namespace augur::serve_bench
