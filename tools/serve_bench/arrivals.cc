#include "tools/serve_bench/arrivals.h"

#include <cmath>
#include <string>

#include "kernels/require.h"

namespace augur::serve_bench {

Arrivals::Arrivals(double rate, Arrival arrival, double burstiness, uint64_t seed)
    : rate_(rate), arrival_(arrival), generator_(seed) {
  AUGUR_REQUIRE(rate > 0, "rate is " + std::to_string(rate));
  AUGUR_REQUIRE(burstiness > 0, "burstiness is " + std::to_string(burstiness));
  if (!is_at_once()) gap_s_ = std::gamma_distribution<double>(burstiness, 1 / (rate * burstiness));
}

bool Arrivals::is_at_once() const {
  return std::isinf(rate_);
}

double Arrivals::next_s() {
  if (is_at_once()) return 0;
  if (arrival_ == Arrival::kConstant) return static_cast<double>(num_arrived_++) / rate_;
  if (num_arrived_++ > 0) last_s_ += gap_s_(generator_);
  return last_s_;
}

}  // namespace augur::serve_bench
