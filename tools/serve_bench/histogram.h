// Counts of durations in buckets so narrow that percentiles are within 0.1 %.
//
// For gaps between tokens, of which a long run has hundreds of millions: memory is bounded by the
// number of buckets (45 x 1024), not by the samples. Count, sum, least and largest are exact.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <vector>

namespace augur::serve_bench {

class Histogram {
 public:
  /// `value_us` below 0 counts as 0.
  void add(int64_t value_us);

  int64_t count() const { return count_; }
  double mean_us() const;
  double std_us() const;  // of the population
  int64_t max_us() const { return max_us_; }
  /// The value that `percent` of the samples do not exceed, interpolated between neighbours as
  /// numpy.percentile does. 0 without samples.
  double percentile_us(double percent) const;

 private:
  double value_at(int64_t rank) const;  // of the sample with that place in order

  std::vector<int64_t> buckets_;  // as many as the largest sample needs
  int64_t count_ = 0;
  double sum_us_ = 0;
  double sum_squares_ = 0;
  int64_t max_us_ = 0;
};

}  // namespace augur::serve_bench
