// Chooses what each step computes, and which sequence holds which KV blocks.
//
// Sequences are served in order: of their priority, where the policy knows priorities, then of
// their age, which is the order in which they were submitted unless the policy lets some overtake
// others (see Overtaking). A step takes first the running sequences that need one row (decode),
// then chunks of those that need more (prefill), then admits waiting ones while rows, blocks and
// places last; always the first in order. Who was preempted is admitted before all new ones of its
// priority.
//
// Blocks: a sequence is admitted with blocks for all the tokens it has then, so only decode takes
// more later. It is admitted when, besides, enough blocks stay available for the growth to be
// expected of it and of those that run, judged by the share of their max_tokens that sequences used
// of late; so preemption is rare. Available are blocks that are free and those that are only kept
// for who begins alike. A decode that finds none preempts the last running sequence in order,
// which gives back its blocks and waits to be recomputed. So the first running sequence always
// advances, and among equals the head of the queue is overtaken at most a set number of times and
// waits for others to compute its prefix at most kMaxDeferrals steps: no deadlock, and of equal
// priority and one tenant nobody starves, whatever the sizes, as long as each sequence fits alone.
//
// Sharing: a sequence begins behind the longest beginning of its tokens that is there (kv_blocks.h
// says of whom). When at least half of what it would compute is just what another computes in the
// same step, it waits for the next one instead; its place and its blocks are kept for it. So the
// completions of one prompt, or equal prompts that come together, compute it once.
//
// Overtaking: kExpertAffinity and kLongestPrefixMatch choose among the `window` oldest waiting
// (kExpertAffinity while others run): whose experts overlap most with theirs, or whose prompt has
// the most blocks there; ties, and what nothing is known of, by age; when the chosen finds no room,
// the oldest is tried. Whom it passes has been overtaken once more. It becomes older than they are,
// from then on and for good, so all that is said of age holds of the new order. Nobody passes a
// sequence that was overtaken `max_overtakes` times, or one that was preempted.
//
// Priorities: with kPriority a waiting sequence that is strictly better than the last running one
// is admitted before anything is computed, and where it finds no place or no blocks, those worse
// than it are preempted for it, the last first. The worst may wait for ever while better ones come.
//
// Tenants: with fair queueing (waiting_queue.h) all this is the order within a tenant, and tenants
// take turns. A tenant's turn comes when the others that wait have been served as much; endlessly
// many tenants that come for the first time would each have theirs before.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/schedule/affinity.h"
#include "engine/schedule/kv_blocks.h"
#include "engine/schedule/prefixes_under_way.h"
#include "engine/schedule/schedule_options.h"
#include "engine/schedule/sequence.h"
#include "engine/schedule/waiting_queue.h"

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

/// Counted since the scheduler was made.
struct ScheduleCounters {
  int64_t preemptions = 0;
  int64_t reordered_admissions = 0;  // of others than the oldest
  int64_t prefix_query_tokens = 0;   // of prompts admitted first, while prefixes are kept
  int64_t prefix_hit_tokens = 0;     // of those, found
};

class Scheduler {
 public:
  static constexpr int kMaxDeferrals = 4;  // of one sequence

  /// Requires every limit and affinity.window to be at least 1, affinity.max_overtakes to be 0 to
  /// 2^20, and an oracle for kExpertAffinity.
  explicit Scheduler(const ScheduleLimits& limits, const ScheduleOptions& options = {});

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
  /// Whether plan() might admit a waiting sequence, if there are blocks and rows for it.
  bool could_admit();

  /// Ends a sequence, in whatever state: its blocks are given back.
  void end(Sequence& sequence);
  /// Gives up all blocks that no sequence holds. Returns how many that were.
  int64_t flush_prefixes() { return kv_.flush(); }

  int64_t num_waiting() const { return queue_.size() + static_cast<int64_t>(preempted_.size()); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  const ScheduleCounters& counters() const { return counters_; }
  const KvBlocks& kv() const { return kv_; }

 private:
  enum class Outcome : uint8_t { kAdmitted, kNoRoom, kDeferred };

  /// Blocks to keep available for the growth of a sequence that holds `num_blocks`: at least one
  /// while it can grow, more where sequences use much of their max_tokens.
  int64_t reserve_of(const Sequence& sequence, int64_t num_blocks) const;
  void learn_length(const Sequence& sequence);
  bool has_place() const { return num_running() < limits_.max_running; }

  // The parts of plan().
  /// Admits those better than the last running one, preempting those worse than they are.
  void admit_better();
  void plan_decode();
  void plan_prefill();
  void admit_waiting();
  void push_rows(Sequence& sequence);

  /// The waiting sequence to admit next, if there is room for it; null when none waits.
  Sequence* choose();
  Sequence& best_of(const SequenceOrder& order);
  /// Admits a waiting sequence, or takes it out of the queue for this plan, if there is room.
  Outcome try_admit(Sequence& sequence);
  void admit(Sequence& sequence, int64_t num_blocks);
  void count_admission(Sequence& sequence);
  void wait_again(Sequence& sequence);
  void take_from_waiting(Sequence& sequence);
  void overtake(Sequence& sequence);
  /// Makes room for the next position of a running sequence, preempting those after it if it must.
  /// Returns false when it was itself the last, and has been preempted.
  bool grow(Sequence& sequence);
  void preempt_last();
  void remove_from_running(Sequence& sequence);

  // Constant after construction.
  const ScheduleLimits limits_;
  const ScheduleOptions options_;

  AffinityRanker ranker_;
  KvBlocks kv_;
  WaitingQueue queue_;              // those never admitted
  SequenceOrder preempted_;         // the others that wait
  std::vector<Sequence*> running_;  // the first in order first
  int64_t next_age_ = 0;
  double length_share_ = 0.25;  // of max_tokens that ended sequences used, smoothed
  ScheduleCounters counters_;

  // Of one plan.
  std::vector<ScheduledRows> plan_;
  int64_t num_rows_left_ = 0;
  int64_t growth_reserve_ = 0;  // blocks to keep for those that run or are deferred
  PrefixesUnderWay under_way_;
  std::vector<Sequence*> deferred_;
  Beginning beginning_;  // of the sequence that is tried
};

}  // namespace augur
