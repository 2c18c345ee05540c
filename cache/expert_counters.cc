#include "cache/expert_counters.h"

#include <numeric>

namespace augur {

std::string_view name_of(MissCause cause) {
  constexpr std::array<std::string_view, kNumMissCauses> kNames = {
      "late_prefetch", "cold", "prefill_evicted", "mispredicted", "capacity"};
  return kNames[static_cast<size_t>(cause)];
}

ExpertUseCounts& ExpertUseCounts::operator+=(const ExpertUseCounts& other) {
  num_uses += other.num_uses;
  num_hits += other.num_hits;
  for (int i = 0; i < kNumMissCauses; ++i) misses[i] += other.misses[i];
  num_prefetches += other.num_prefetches;
  num_useful_prefetches += other.num_useful_prefetches;
  num_wasted_prefetches += other.num_wasted_prefetches;
  return *this;
}

ExpertUseCounts& ExpertUseCounts::operator-=(const ExpertUseCounts& other) {
  num_uses -= other.num_uses;
  num_hits -= other.num_hits;
  for (int i = 0; i < kNumMissCauses; ++i) misses[i] -= other.misses[i];
  num_prefetches -= other.num_prefetches;
  num_useful_prefetches -= other.num_useful_prefetches;
  num_wasted_prefetches -= other.num_wasted_prefetches;
  return *this;
}

ExpertCounters::ExpertCounters(int num_layers, int num_experts)
    : num_experts_(num_experts),
      layers_(num_layers),
      histories_(static_cast<size_t>(num_layers) * num_experts) {}

ExpertUseCounts ExpertCounters::total() const {
  ExpertUseCounts total;
  for (const ExpertUseCounts& layer : layers_) total += layer;
  return total;
}

int64_t ExpertCounters::demand_bytes() const {
  return std::accumulate(demand_bytes_by_cause.begin(), demand_bytes_by_cause.end(), int64_t{0});
}

}  // namespace augur
