// The entries of one layer of a route cache.
//
// Entries are least recently used first out. One whose key is all but the same as a new one's is
// renewed instead of kept beside it.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/key_rows.h"
#include "cache/lru_order.h"
#include "cache/similarity_threshold.h"

namespace augur {

/// What happened; of one layer or of all.
struct RouteCounts {
  int64_t num_sampled_rows = 0;
  int64_t num_look_ups = 0;  // rows
  int64_t num_hits = 0;
  int64_t num_served = 0;
  int64_t num_checks = 0;
  int64_t num_checked_experts = 0;
  int64_t num_agreed_experts = 0;  // of those, stored and chosen
  int64_t num_inserts = 0;
  int64_t num_renewals = 0;
  int64_t num_evictions = 0;
  double look_up_us = 0;  // projecting and searching, all rows together

  double hit_rate() const;
  /// Agreement at k: 0 before the first check.
  double agreement() const;
  RouteCounts& operator+=(const RouteCounts& other);
};

/// Where a key was stored; names nothing once the entry was written again.
struct RouteSlot {
  int slot = -1;
  uint64_t version = 0;
};

/// The most alike entry at the time of the look-up.
struct RouteMatch {
  Key key;  // looked up
  KeyRows::Nearest nearest;
  uint64_t num_writes = 0;  // of the layer until then
  float threshold = 0;      // it was held against
  bool is_hit = false;
  bool is_served = false;
};

class RouteLayer {
 public:
  /// Keys from here on are taken to be of the same state.
  static constexpr float kSameState = 0.998f;

  /// `entry_experts` is a multiple of `top_k`: the layer's own and what it foretells.
  RouteLayer(int capacity, int dims, int top_k, int entry_experts, const ThresholdLimits& limits);

  static int64_t num_bytes(int capacity, int dims, int top_k, int entry_experts);

  /// A hit counts as a use of its entry.
  RouteMatch look_up(const Key& key);
  /// Stores what the gate chose for the key of `match`; slot -1 when it has no direction.
  RouteSlot store(const RouteMatch& match, const int32_t* experts, const float* weights);
  /// Adds what the same token chose `distance` MoE layers later; nothing when the entry is gone.
  void foretell(const RouteSlot& slot, int distance, const int32_t* experts);
  void clear();

  /// [entry_experts]; -1 where unknown.
  std::span<const int32_t> experts(int slot) const;
  std::span<const float> weights(int slot) const;

  SimilarityThreshold& threshold() { return threshold_; }
  const SimilarityThreshold& threshold() const { return threshold_; }
  RouteCounts& counts() { return counts_; }
  const RouteCounts& counts() const { return counts_; }
  int num_entries() const { return num_entries_; }

 private:
  int slot_for(const RouteMatch& match);

  // Constant after construction.
  const int capacity_;
  const int top_k_;
  const int entry_experts_;
  const ThresholdLimits limits_;
  // Changed by look_up (order, threshold, counts) and store.
  KeyRows keys_;
  LruOrder order_;
  int num_entries_ = 0;
  uint64_t num_writes_ = 0;
  std::vector<uint64_t> versions_;  // [capacity], num_writes_ at the last write
  std::vector<int32_t> experts_;    // [capacity, entry_experts]
  std::vector<float> weights_;      // [capacity, top_k]
  SimilarityThreshold threshold_;
  RouteCounts counts_;
};

}  // namespace augur
