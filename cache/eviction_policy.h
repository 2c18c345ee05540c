// Which slot of a pool gives up its expert when another is wanted.
//
// The pool tells a policy what happens in its slots; a policy ranks the slots and may remember what
// it likes of experts that have left. Policies know nothing of backends, so that the pool and the
// replay of recorded routing share them.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "cache/expert_key.h"

namespace augur {

class EvictionPolicy {
 public:
  /// Slots are numbered 0 to num_slots - 1.
  explicit EvictionPolicy(int num_slots);
  virtual ~EvictionPolicy() = default;

  /// `slot`, which was empty, holds `key` now. Its first on_use follows.
  void on_fill(int slot, ExpertKey key);
  /// The expert in `slot` was asked for.
  void on_use(int slot);
  /// `slot` is empty now.
  void on_evict(int slot);

  /// The slot worth least among the filled ones that `is_evictable` admits; -1 when there is none.
  int choose_victim(const std::function<bool(int slot)>& is_evictable) const;

 protected:
  /// What keeping `key` is worth after the use number `use_idx` (from 0, of all slots together),
  /// which was its own. Called once for every use, in order.
  virtual double worth_after_use(ExpertKey key, int64_t use_idx) = 0;

 private:
  struct Slot {
    ExpertKey key;
    double worth = 0;
    bool is_filled = false;
  };

  std::vector<Slot> slots_;
  std::set<std::pair<double, int>> by_worth_;  // filled slots
  int64_t num_uses_ = 0;
};

/// The least recently used goes first.
std::unique_ptr<EvictionPolicy> make_lru_policy(int num_slots);

/// The least frequently used goes first, where a use counts half as much after `half_life` further
/// uses (of any expert). Experts that left keep their count. Requires half_life > 0.
std::unique_ptr<EvictionPolicy> make_lfu_policy(int num_slots, double half_life);

/// The optimum, for comparison: who is used again last goes first. `uses` are all uses to come, in
/// their order; on_use requires to be called for just these. Source: Belady 1966, "A study of
/// replacement algorithms for a virtual-storage computer".
std::unique_ptr<EvictionPolicy> make_belady_policy(int num_slots, std::vector<ExpertKey> uses);

}  // namespace augur
