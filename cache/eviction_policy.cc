#include "cache/eviction_policy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <unordered_map>

#include "kernels/require.h"

namespace augur {
namespace {

class Lru final : public EvictionPolicy {
 public:
  using EvictionPolicy::EvictionPolicy;

 private:
  double worth_after_use(ExpertKey, int64_t use_idx) override {
    return static_cast<double>(use_idx);
  }
};

// A use at time t weighs 2^(t / half_life): all weights double together, so that nothing need be
// aged, and their order is that of decayed counts. Kept as logarithms, which do not overflow.
class Lfu final : public EvictionPolicy {
 public:
  Lfu(int num_slots, double half_life) : EvictionPolicy(num_slots), half_life_(half_life) {
    AUGUR_REQUIRE(half_life > 0, std::to_string(half_life));
  }

 private:
  double worth_after_use(ExpertKey key, int64_t use_idx) override {
    const double weight = static_cast<double>(use_idx) / half_life_;
    const auto [entry, is_new] = log2_count_.try_emplace(key, weight);
    double& count = entry->second;
    if (!is_new) {
      const double larger = std::max(count, weight);
      const double smaller = std::min(count, weight);
      count = larger + std::log2(1 + std::exp2(smaller - larger));
    }
    return count;
  }

  const double half_life_;
  std::unordered_map<ExpertKey, double> log2_count_;
};

class Belady final : public EvictionPolicy {
 public:
  Belady(int num_slots, std::vector<ExpertKey> uses)
      : EvictionPolicy(num_slots), uses_(std::move(uses)), next_use_(uses_.size()) {
    std::unordered_map<ExpertKey, double> next;
    for (size_t i = uses_.size(); i-- > 0;) {
      const auto found = next.find(uses_[i]);
      next_use_[i] = found == next.end() ? std::numeric_limits<double>::infinity() : found->second;
      next[uses_[i]] = static_cast<double>(i);
    }
  }

 private:
  double worth_after_use(ExpertKey key, int64_t use_idx) override {
    AUGUR_REQUIRE(use_idx < static_cast<int64_t>(uses_.size()) && uses_[use_idx] == key,
                  "use " + std::to_string(use_idx) + " is of another expert than announced");
    return -next_use_[use_idx];
  }

  const std::vector<ExpertKey> uses_;
  std::vector<double> next_use_;  // of the same expert
};

}  // namespace

EvictionPolicy::EvictionPolicy(int num_slots) {
  AUGUR_REQUIRE(num_slots > 0, std::to_string(num_slots) + " slots");
  slots_.resize(num_slots);
}

void EvictionPolicy::on_fill(int slot, ExpertKey key) {
  Slot& filled = slots_.at(slot);
  AUGUR_REQUIRE(!filled.is_filled, "slot " + std::to_string(slot) + " is not empty");
  // Until its first use it is worth more than any other: it was brought for that use.
  filled = {key, std::numeric_limits<double>::infinity(), true};
  by_worth_.emplace(filled.worth, slot);
}

void EvictionPolicy::on_use(int slot) {
  Slot& used = slots_.at(slot);
  AUGUR_REQUIRE(used.is_filled, "slot " + std::to_string(slot) + " is empty");
  by_worth_.erase({used.worth, slot});
  used.worth = worth_after_use(used.key, num_uses_++);
  by_worth_.emplace(used.worth, slot);
}

void EvictionPolicy::on_evict(int slot) {
  Slot& evicted = slots_.at(slot);
  AUGUR_REQUIRE(evicted.is_filled, "slot " + std::to_string(slot) + " is empty");
  by_worth_.erase({evicted.worth, slot});
  evicted.is_filled = false;
}

int EvictionPolicy::choose_victim(const std::function<bool(int slot)>& is_evictable) const {
  for (const auto& [worth, slot] : by_worth_) {
    if (is_evictable(slot)) return slot;
  }
  return -1;
}

std::unique_ptr<EvictionPolicy> make_lru_policy(int num_slots) {
  return std::make_unique<Lru>(num_slots);
}
std::unique_ptr<EvictionPolicy> make_lfu_policy(int num_slots, double half_life) {
  return std::make_unique<Lfu>(num_slots, half_life);
}
std::unique_ptr<EvictionPolicy> make_belady_policy(int num_slots, std::vector<ExpertKey> uses) {
  return std::make_unique<Belady>(num_slots, std::move(uses));
}

}  // namespace augur
