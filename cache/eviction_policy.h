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
#include <vector>

#include "cache/expert_key.h"

namespace augur {

class EvictionPolicy {
 public:
  /// Slots are numbered 0 to num_slots - 1.
  explicit EvictionPolicy(int num_slots);
  virtual ~EvictionPolicy() = default;

  /// `slot`, which was empty, holds `key` now. Its first on_use follows, or on_unneeded.
  void on_fill(int slot, ExpertKey key);
  /// The expert in `slot` was asked for.
  void on_use(int slot);
  /// The expert in `slot` was brought for a use that did not come: it goes first from now on.
  void on_unneeded(int slot);
  /// `slot` is empty now.
  void on_evict(int slot);

  /// The slot worth least among the filled ones that `is_evictable` admits; -1 when there is none.
  virtual int choose_victim(const std::function<bool(int slot)>& is_evictable) const = 0;

 protected:
  virtual void filled(int slot, ExpertKey key) = 0;
  /// `use_idx` counts the uses of all slots together, from 0.
  virtual void used(int slot, ExpertKey key, int64_t use_idx) = 0;
  virtual void unneeded(int slot, ExpertKey key) = 0;
  virtual void evicted(int slot, ExpertKey key) = 0;

 private:
  struct Slot {
    ExpertKey key;
    bool is_filled = false;
  };

  ExpertKey key_in(int slot) const;

  std::vector<Slot> slots_;
  int64_t num_uses_ = 0;
};

/// The least recently used goes first.
std::unique_ptr<EvictionPolicy> make_lru_policy(int num_slots);

/// The least frequently used goes first, where a use counts half as much after `half_life` further
/// uses (of any expert). Experts that left keep their count. Requires half_life > 0.
std::unique_ptr<EvictionPolicy> make_lfu_policy(int num_slots, double half_life);

/// Who was not used since the forward pass began is stale and goes first: of the layer that is
/// visited again last, which is the one that has just run, the least recently used; then that of
/// the layer before it. Those used in this pass follow in the same order. A pass begins where a
/// layer is used that does not come after the last one used. Source: after Hoang et al. 2026,
/// arXiv:2602.03921 (Least-Stale), with the distance to a layer's next visit as the order.
std::unique_ptr<EvictionPolicy> make_least_stale_policy(int num_slots);

/// The optimum, for comparison: who is used again last goes first. `uses` are all uses to come, in
/// their order; those of one moment may come in any order. on_use is called for no others.
/// Source: Belady 1966, "A study of replacement algorithms for a virtual-storage computer".
std::unique_ptr<EvictionPolicy> make_belady_policy(int num_slots,
                                                   const std::vector<ExpertKey>& uses);

}  // namespace augur
