#include "cache/eviction_policy.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "kernels/require.h"

namespace augur {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Slots in the order of a number that changes with their uses only.
class RankedPolicy : public EvictionPolicy {
 public:
  explicit RankedPolicy(int num_slots) : EvictionPolicy(num_slots), places_(num_slots) {
    for (int slot = 0; slot < num_slots; ++slot) {
      places_[slot].node = by_worth_.extract(by_worth_.emplace(0, slot).first);
    }
  }

  int choose_victim(const std::function<bool(int slot)>& is_evictable) const final {
    for (const auto& [worth, slot] : by_worth_) {
      if (is_evictable(slot)) return slot;
    }
    return -1;
  }

 protected:
  /// What keeping `key` is worth after its use number `use_idx`. Called once for every use, in
  /// order.
  virtual double worth_after_use(ExpertKey key, int64_t use_idx) = 0;

 private:
  using ByWorth = std::set<std::pair<double, int>>;
  // Either in by_worth_, or with a node that waits to be: nothing is allocated while the pool runs.
  struct Place {
    ByWorth::iterator at;
    ByWorth::node_type node;
  };

  // Until its first use it is worth more than any other: it was brought for that use.
  void filled(int slot, ExpertKey) final { rank(slot, kInfinity); }
  void used(int slot, ExpertKey key, int64_t use_idx) final {
    const double worth = worth_after_use(key, use_idx);
    evicted(slot, key);
    rank(slot, worth);
  }
  void unneeded(int slot, ExpertKey key) final {
    evicted(slot, key);
    rank(slot, -kInfinity);
  }
  void evicted(int slot, ExpertKey) final {
    places_[slot].node = by_worth_.extract(places_[slot].at);
  }
  void rank(int slot, double worth) {
    places_[slot].node.value() = {worth, slot};
    // Most often it is worth more than the others.
    places_[slot].at = by_worth_.insert(by_worth_.end(), std::move(places_[slot].node));
  }

  std::vector<Place> places_;  // by slot
  ByWorth by_worth_;           // filled slots
};

class Lru final : public RankedPolicy {
 public:
  using RankedPolicy::RankedPolicy;

 private:
  double worth_after_use(ExpertKey, int64_t use_idx) override {
    return static_cast<double>(use_idx);
  }
};

// A use at time t weighs 2^(t / half_life): all weights double together, so that nothing need be
// aged, and their order is that of decayed counts. Kept as logarithms, which do not overflow.
class Lfu final : public RankedPolicy {
 public:
  Lfu(int num_slots, double half_life) : RankedPolicy(num_slots), half_life_(half_life) {
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

class Belady final : public RankedPolicy {
 public:
  Belady(int num_slots, const std::vector<ExpertKey>& uses) : RankedPolicy(num_slots) {
    for (size_t i = uses.size(); i-- > 0;) to_come_[uses[i]].push_back(static_cast<double>(i));
  }

 private:
  double worth_after_use(ExpertKey key, int64_t) override {
    std::vector<double>& places = to_come_[key];
    AUGUR_REQUIRE(!places.empty(), "a use of expert " + std::to_string(key.expert) + " of layer " +
                                       std::to_string(key.layer) + " was not announced");
    places.pop_back();
    return places.empty() ? -kInfinity : -places.back();
  }

  std::unordered_map<ExpertKey, std::vector<double>> to_come_;  // places of uses, the next one last
};

class LeastStale final : public EvictionPolicy {
 public:
  explicit LeastStale(int num_slots) : EvictionPolicy(num_slots), slots_(num_slots) {}

  int choose_victim(const std::function<bool(int slot)>& is_evictable) const override {
    for (const auto& [last_use, slot] : unneeded_) {
      if (is_evictable(slot)) return slot;
    }
    for (const bool takes_fresh : {false, true}) {
      // Who runs now is visited again last, then the layer before it.
      for (size_t i = 0; i < by_layer_.size(); ++i) {
        const size_t layer = (layer_ + by_layer_.size() - i) % by_layer_.size();
        const int slot = choose_in(by_layer_[layer], takes_fresh, is_evictable);
        if (slot >= 0) return slot;
      }
    }
    return -1;
  }

 private:
  struct Slot {
    int64_t last_use = 0;
    int64_t pass = 0;
    bool is_unneeded = false;
  };
  using ByLastUse = std::set<std::pair<int64_t, int>>;
  static constexpr int64_t kNotUsedYet = std::numeric_limits<int64_t>::max();

  int choose_in(const ByLastUse& slots,
                bool takes_fresh,
                const std::function<bool(int slot)>& is_evictable) const {
    for (auto i = slots.begin(); i != slots.end(); ++i) {
      const bool is_fresh = slots_[i->second].pass == pass_;
      if (is_fresh == takes_fresh && is_evictable(i->second)) return i->second;
      if (takes_fresh || !is_fresh || i->first == kNotUsedYet) continue;
      // Who was used later is fresh too, and most often all are.
      if (slots.rbegin()->first != kNotUsedYet) return -1;
      i = std::prev(slots.lower_bound({kNotUsedYet, 0}));
    }
    return -1;
  }
  void filled(int slot, ExpertKey key) override {
    if (by_layer_.size() <= static_cast<size_t>(key.layer)) by_layer_.resize(key.layer + 1);
    // As if used last in this pass: it was brought for a use to come.
    slots_[slot] = {kNotUsedYet, pass_, false};
    list_of(slot, key).emplace(slots_[slot].last_use, slot);
  }
  void used(int slot, ExpertKey key, int64_t use_idx) override {
    list_of(slot, key).erase({slots_[slot].last_use, slot});
    if (key.layer < layer_) ++pass_;
    layer_ = key.layer;
    slots_[slot] = {use_idx, pass_, false};
    list_of(slot, key).emplace(use_idx, slot);
  }
  void unneeded(int slot, ExpertKey key) override {
    list_of(slot, key).erase({slots_[slot].last_use, slot});
    slots_[slot].is_unneeded = true;
    unneeded_.emplace(slots_[slot].last_use, slot);
  }
  void evicted(int slot, ExpertKey key) override {
    list_of(slot, key).erase({slots_[slot].last_use, slot});
  }
  ByLastUse& list_of(int slot, ExpertKey key) {
    return slots_[slot].is_unneeded ? unneeded_ : by_layer_[key.layer];
  }

  std::vector<Slot> slots_;
  std::vector<ByLastUse> by_layer_;
  ByLastUse unneeded_;
  int layer_ = 0;  // of the last use
  int64_t pass_ = 0;
};

}  // namespace

EvictionPolicy::EvictionPolicy(int num_slots) {
  AUGUR_REQUIRE(num_slots > 0, std::to_string(num_slots) + " slots");
  slots_.resize(num_slots);
}

ExpertKey EvictionPolicy::key_in(int slot) const {
  AUGUR_REQUIRE(slots_.at(slot).is_filled, "slot " + std::to_string(slot) + " is empty");
  return slots_[slot].key;
}

void EvictionPolicy::on_fill(int slot, ExpertKey key) {
  AUGUR_REQUIRE(!slots_.at(slot).is_filled, "slot " + std::to_string(slot) + " is not empty");
  slots_[slot] = {key, true};
  filled(slot, key);
}

void EvictionPolicy::on_use(int slot) {
  const ExpertKey key = key_in(slot);
  used(slot, key, num_uses_++);
}

void EvictionPolicy::on_unneeded(int slot) {
  unneeded(slot, key_in(slot));
}

void EvictionPolicy::on_evict(int slot) {
  evicted(slot, key_in(slot));
  slots_[slot].is_filled = false;
}

std::unique_ptr<EvictionPolicy> make_lru_policy(int num_slots) {
  return std::make_unique<Lru>(num_slots);
}
std::unique_ptr<EvictionPolicy> make_lfu_policy(int num_slots, double half_life) {
  return std::make_unique<Lfu>(num_slots, half_life);
}
std::unique_ptr<EvictionPolicy> make_least_stale_policy(int num_slots) {
  return std::make_unique<LeastStale>(num_slots);
}
std::unique_ptr<EvictionPolicy> make_belady_policy(int num_slots,
                                                   const std::vector<ExpertKey>& uses) {
  return std::make_unique<Belady>(num_slots, uses);
}

}  // namespace augur
