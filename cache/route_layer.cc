#include "cache/route_layer.h"

#include <algorithm>
#include <string>

#include "kernels/require.h"

namespace augur {

double RouteCounts::hit_rate() const {
  return num_look_ups == 0 ? 0 : static_cast<double>(num_hits) / static_cast<double>(num_look_ups);
}

double RouteCounts::agreement() const {
  return num_checked_experts == 0
             ? 0
             : static_cast<double>(num_agreed_experts) / static_cast<double>(num_checked_experts);
}

RouteCounts& RouteCounts::operator+=(const RouteCounts& other) {
  num_sampled_rows += other.num_sampled_rows;
  num_look_ups += other.num_look_ups;
  num_hits += other.num_hits;
  num_served += other.num_served;
  num_checks += other.num_checks;
  num_checked_experts += other.num_checked_experts;
  num_agreed_experts += other.num_agreed_experts;
  num_inserts += other.num_inserts;
  num_renewals += other.num_renewals;
  num_evictions += other.num_evictions;
  look_up_us += other.look_up_us;
  return *this;
}

RouteLayer::RouteLayer(
    int capacity, int dims, int top_k, int entry_experts, const ThresholdLimits& limits)
    : capacity_(capacity),
      top_k_(top_k),
      entry_experts_(entry_experts),
      limits_(limits),
      keys_(capacity, dims),
      order_(capacity),
      versions_(capacity),
      experts_(static_cast<size_t>(capacity) * entry_experts, -1),
      weights_(static_cast<size_t>(capacity) * top_k),
      threshold_(limits) {
  AUGUR_REQUIRE(top_k >= 1 && entry_experts >= top_k && entry_experts % top_k == 0,
                std::to_string(entry_experts) + " experts an entry, top " + std::to_string(top_k));
}

int64_t RouteLayer::num_bytes(int capacity, int dims, int top_k, int entry_experts) {
  const int64_t entry = int64_t{4} * entry_experts + int64_t{4} * top_k + 8 + 2 * 4;
  return KeyRows::num_bytes(capacity, dims) + capacity * entry;
}

RouteMatch RouteLayer::look_up(const Key& key) {
  RouteMatch match;
  match.key = key;
  match.nearest = keys_.nearest(key, num_entries_);
  match.num_writes = num_writes_;
  match.threshold = threshold_.value();
  match.is_hit = match.nearest.row >= 0 && match.nearest.cosine >= match.threshold;
  threshold_.on_look_up(match.is_hit);
  ++counts_.num_look_ups;
  if (match.is_hit) {
    ++counts_.num_hits;
    order_.touch(match.nearest.row);
  }
  return match;
}

int RouteLayer::slot_for(const RouteMatch& match) {
  // Rows of the same step may have stored the same state since.
  const KeyRows::Nearest nearest =
      match.num_writes == num_writes_ ? match.nearest : keys_.nearest(match.key, num_entries_);
  if (nearest.row >= 0 && nearest.cosine >= kSameState) {
    ++counts_.num_renewals;
    return nearest.row;
  }
  ++counts_.num_inserts;
  int slot = num_entries_;
  if (num_entries_ < capacity_) {
    ++num_entries_;
  } else {
    slot = order_.oldest();
    ++counts_.num_evictions;
  }
  std::fill_n(&experts_[static_cast<size_t>(slot) * entry_experts_], entry_experts_, -1);
  return slot;
}

RouteSlot RouteLayer::store(const RouteMatch& match, const int32_t* experts, const float* weights) {
  if (match.key.inverse_norm == 0) return {};
  const int slot = slot_for(match);
  keys_.set(slot, match.key);
  std::copy_n(experts, top_k_, &experts_[static_cast<size_t>(slot) * entry_experts_]);
  std::copy_n(weights, top_k_, &weights_[static_cast<size_t>(slot) * top_k_]);
  order_.touch(slot);
  versions_[slot] = ++num_writes_;
  return {slot, num_writes_};
}

void RouteLayer::foretell(const RouteSlot& slot, int distance, const int32_t* experts) {
  AUGUR_REQUIRE(distance >= 1 && (distance + 1) * top_k_ <= entry_experts_,
                "distance " + std::to_string(distance));
  if (slot.slot < 0 || versions_[slot.slot] != slot.version) return;
  std::copy_n(experts, top_k_,
              &experts_[static_cast<size_t>(slot.slot) * entry_experts_ + distance * top_k_]);
}

void RouteLayer::clear() {
  keys_ = KeyRows(capacity_, keys_.dims());
  order_ = LruOrder(capacity_);
  num_entries_ = 0;
  std::fill(versions_.begin(), versions_.end(), 0);
  threshold_ = SimilarityThreshold(limits_);
}

std::span<const int32_t> RouteLayer::experts(int slot) const {
  return std::span(experts_).subspan(static_cast<size_t>(slot) * entry_experts_, entry_experts_);
}

std::span<const float> RouteLayer::weights(int slot) const {
  return std::span(weights_).subspan(static_cast<size_t>(slot) * top_k_, top_k_);
}

}  // namespace augur
