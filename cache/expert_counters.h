// What expert memory did, counted where it happens and read by reports, metrics and tests.
//
// All counts run from the start. Uses are counted per step: an expert that several rows of a step
// want at once is one use.
// Threading: one thread.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "cache/expert_key.h"

namespace augur {

/// Why an expert was not there when its layer wanted it; the first that applies.
enum class MissCause : uint8_t {
  kLatePrefetch,    // it was on its way, asked for by a prediction
  kCold,            // it had never been in the pool
  kPrefillEvicted,  // a prompt's expert had taken its slot
  kMispredicted,    // a predicted expert had taken its slot
  kCapacity,        // another use had
};
inline constexpr int kNumMissCauses = 5;
std::string_view name_of(MissCause cause);  // "late_prefetch"

/// Of one layer, or of all.
struct ExpertUseCounts {
  int64_t num_uses = 0;
  int64_t num_hits = 0;
  std::array<int64_t, kNumMissCauses> misses = {};
  int64_t num_prefetches = 0;         // begun
  int64_t num_useful_prefetches = 0;  // wanted before they left the pool again; late ones too
  int64_t num_wasted_prefetches = 0;  // cancelled, or gone without a use

  int64_t num_misses() const { return num_uses - num_hits; }
  double hit_rate() const {
    return num_uses > 0 ? static_cast<double>(num_hits) / static_cast<double>(num_uses) : 0;
  }
  ExpertUseCounts& operator+=(const ExpertUseCounts& other);
  ExpertUseCounts& operator-=(const ExpertUseCounts& other);
};

/// Of one expert.
struct ExpertHistory {
  int64_t num_uses = 0;
  int64_t num_hits = 0;
  int64_t num_prefetches = 0;
  int64_t resident_steps = 0;  // steps at whose end it lay in the pool
};

class ExpertCounters {
 public:
  ExpertCounters(int num_layers, int num_experts);

  ExpertUseCounts& layer(int layer) { return layers_.at(layer); }
  const ExpertUseCounts& layer(int layer) const { return layers_.at(layer); }
  ExpertUseCounts total() const;
  ExpertHistory& history(ExpertKey key) { return histories_[index(key)]; }
  const ExpertHistory& history(ExpertKey key) const { return histories_[index(key)]; }

  int num_layers() const { return static_cast<int>(layers_.size()); }
  int num_experts() const { return num_experts_; }
  int64_t demand_bytes() const;

  // Taken from the slow tier.
  std::array<int64_t, kNumMissCauses> demand_bytes_by_cause = {};
  int64_t useful_prefetch_bytes = 0;  // of prefetches that were wanted, late ones apart
  int64_t wasted_prefetch_bytes = 0;  // of those cancelled or gone without a use
  int64_t stall_us = 0;               // layers waiting for experts
  int64_t num_steps = 0;
  int64_t num_passes = 0;          // groups of experts that layers were run in
  int64_t num_failed_fetches = 0;  // reading went wrong

 private:
  size_t index(ExpertKey key) const {
    return static_cast<size_t>(key.layer) * num_experts_ + key.expert;
  }

  int num_experts_;
  std::vector<ExpertUseCounts> layers_;
  std::vector<ExpertHistory> histories_;  // [num_layers, num_experts]
};

}  // namespace augur
