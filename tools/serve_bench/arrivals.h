// When requests arrive: the gaps between them.
//
// Poisson arrivals have gaps that are exponentially distributed. `burstiness` is the shape of the
// gamma distribution they are drawn from in general, as in `vllm bench serve`: 1 is Poisson, less
// comes in bursts, more is steadier. The mean gap is 1 / rate for each.
// Threading: one thread. The same seed gives the same gaps.
#pragma once

#include <cstdint>
#include <random>

#include "tools/serve_bench/options.h"

namespace augur::serve_bench {

class Arrivals {
 public:
  /// Requires rate > 0 (infinite: all at once) and burstiness > 0.
  Arrivals(double rate, Arrival arrival, double burstiness, uint64_t seed);

  /// From the beginning to the next arrival, in seconds; never less than the one before.
  double next_s();
  bool is_at_once() const;

 private:
  const double rate_;
  const Arrival arrival_;
  std::mt19937_64 generator_;
  std::gamma_distribution<double> gap_s_;
  int64_t num_arrived_ = 0;
  double last_s_ = 0;
};

}  // namespace augur::serve_bench
