// Chooses what each step computes, and which sequence holds which KV blocks.
//
// Sequences are served in the order of their age: that in which they were submitted, unless an
// oracle of affinity is given (see Overtaking). A step takes first the running sequences that need
// one row (decode), then chunks of those that need more (prefill), then admits waiting ones while
// rows, blocks and places last; always the oldest first.
//
// Blocks: a sequence is admitted with blocks for all the tokens it has then, so only decode takes
// more later. It is admitted when, besides, enough blocks stay free for the growth to be expected
// of it and of those that run, judged by the share of their max_tokens that sequences used of late;
// so preemption is rare. A decode that finds no block preempts the newest running sequence, which
// gives back its blocks and waits, before all newer ones, to be recomputed. So the oldest running
// sequence always advances, and the head of the queue is overtaken at most a set number of times,
// without an oracle never: no deadlock, and nobody starves, whatever the sizes, as long as each
// sequence fits alone.
//
// Overtaking: with an oracle, while others run, the one admitted next is that of the `window`
// oldest waiting whose experts overlap most with theirs; ties, and what nothing is known of, by
// age; when it finds no room, the oldest. Whom it passes has been overtaken once more. It becomes
// older than they are, from then on and for good, so all that is said of age holds of the new
// order. Nobody passes a sequence that was overtaken `max_overtakes` times, or one that was
// preempted: both are admitted before all that are newer. (Whoever is parked is not overtaken: it
// does not wait for a place. It begins to wait with the age it had.)
//
// Sharing: sequences of one request share the full blocks before the prompt's last token. The
// others are parked until the first has computed them, then begin behind them; what remains of the
// prompt (at most one block) each computes itself, and so has its own first logits.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "engine/schedule/affinity.h"
#include "engine/schedule/block_allocator.h"
#include "engine/schedule/sequence.h"

namespace augur {

struct ScheduleLimits {
  int64_t max_running = 0;  // sequences
  int64_t max_rows = 0;     // of one step
  int64_t num_blocks = 0;
  int block_size = 0;
};

/// Positions first_position .. first_position + num_rows - 1 of a sequence.
struct ScheduledRows {
  Sequence* sequence = nullptr;  // null: it ended since
  int64_t num_rows = 0;
  int64_t first_position = 0;
  // >= 0: the one row's token is not known yet; it is what this logit row of the step before
  // samples.
  int32_t sampled_row = -1;

  int64_t end() const { return first_position + num_rows; }
};

class Scheduler {
 public:
  /// Requires every limit and affinity.window to be at least 1, affinity.max_overtakes to be 0 to
  /// 2^20.
  explicit Scheduler(const ScheduleLimits& limits, const AffinityOptions& affinity = {});

  /// Queues the sequences of a request. Requires that each fits alone:
  /// blocks_for(max_positions) <= num_blocks.
  void add(ActiveRequest& request);

  /// Chooses the next step. Empty only when no sequence is there. May be called again without
  /// commit, when the step failed; valid until the next call.
  const std::vector<ScheduledRows>& plan();
  /// These rows were computed.
  void commit(std::span<const ScheduledRows> computed);
  /// Sees that a running sequence has blocks for so many positions, without preempting another.
  /// Returns false, having done nothing, when there are too few.
  bool try_grow(Sequence& sequence, int64_t num_positions);

  /// Ends a sequence, in whatever state: its blocks are given back.
  void end(Sequence& sequence);

  int64_t blocks_for(int64_t num_positions) const {
    return (num_positions + limits_.block_size - 1) / limits_.block_size;
  }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()) + num_parked_; }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }
  /// Admissions of others than the oldest.
  int64_t num_reordered() const { return num_reordered_; }
  int64_t num_free_blocks() const { return allocator_.num_free(); }

 private:
  struct Older {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->age < b->age; }
  };

  /// Blocks to keep free for the growth of a sequence that holds `num_blocks`: at least one while
  /// it can grow, more where sequences use much of their max_tokens.
  int64_t reserve_of(const Sequence& sequence, int64_t num_blocks) const;
  void learn_length(const Sequence& sequence);
  bool has_place() const { return num_running() < limits_.max_running; }
  /// The waiting sequence to admit next, if there is room for it. Requires that one waits.
  Sequence& choose();
  /// Admits a waiting sequence if there is room for it. `growth_reserve`: blocks to keep free for
  /// the sequences that run; kept up to date.
  bool admit(Sequence& sequence, int64_t& growth_reserve);
  /// Takes a sequence from the waiting ones, past those before it.
  void take_from_waiting(Sequence& sequence);
  /// Makes room for the next position of a running sequence, preempting newer ones if it must.
  /// Returns false when it was itself the newest, and has been preempted.
  bool grow(Sequence& sequence);
  void preempt_newest();
  void release_blocks(Sequence& sequence);
  void remove_from_running(Sequence& sequence);
  /// Sees that `num_blocks` are free, giving up shared prompts that no running sequence uses,
  /// newest first, but not that of `keep`. Returns false, giving up none, when that is not enough.
  bool free_up(int64_t num_blocks, const ActiveRequest* keep);
  void drop_prefix(ActiveRequest& request);
  void publish_prefix(const Sequence& sequence);

  // Constant after construction.
  const ScheduleLimits limits_;
  const AffinityOptions affinity_;

  AffinityRanker ranker_;
  BlockAllocator allocator_;
  std::set<Sequence*, Older> waiting_;
  std::vector<Sequence*> running_;        // oldest first
  std::vector<ActiveRequest*> prefixed_;  // those with prefix_blocks
  std::vector<ScheduledRows> plan_;
  int64_t num_parked_ = 0;
  int64_t next_age_ = 0;
  double length_share_ = 0.25;  // of max_tokens that ended sequences used, smoothed
  int64_t num_preemptions_ = 0;
  int64_t num_reordered_ = 0;
};

}  // namespace augur
