// The part of the scheduler that decides who is admitted.
#include <algorithm>

#include "engine/schedule/scheduler.h"

namespace augur {
namespace {

/// The oldest of those with the highest score, of the `window` oldest up to one that may not be
/// overtaken.
template <typename Score>
Sequence& highest(const SequenceOrder& order, const AffinityOptions& bounds, const Score& score) {
  Sequence* best = nullptr;
  double most = 0;
  int64_t num_left = bounds.window;
  for (Sequence* sequence : order) {
    const double its = score(*sequence);
    if (best == nullptr || its > most) {
      most = its;
      best = sequence;
    }
    if (--num_left == 0 || sequence->num_overtaken == bounds.max_overtakes) break;
  }
  return *best;
}

}  // namespace

// Whoever was preempted is resumed before new ones as good as it.
Sequence* Scheduler::choose() {
  Sequence* const resumed = preempted_.empty() ? nullptr : *preempted_.begin();
  if (queue_.empty()) return resumed;
  const SequenceOrder& order = queue_.turn();
  if (resumed != nullptr && resumed->priority <= (*order.begin())->priority) return resumed;
  return &best_of(order);
}

Sequence& Scheduler::best_of(const SequenceOrder& order) {
  if (options_.policy == SchedulePolicy::kLongestPrefixMatch) {
    return highest(order, options_.affinity, [this](Sequence& sequence) {
      return static_cast<double>(kv_.num_cached_blocks(*sequence.request));
    });
  }
  if (options_.policy == SchedulePolicy::kExpertAffinity && !running_.empty()) {
    return highest(order, options_.affinity, [this](Sequence& sequence) {
      ActiveRequest& request = *sequence.request;
      return ranker_.overlap(request.request.prompt_ids, request.affinity);
    });
  }
  return **order.begin();
}

Scheduler::Outcome Scheduler::try_admit(Sequence& sequence) {
  const int64_t num_blocks = kv_.blocks_for(sequence.num_known());
  const int64_t own_reserve = reserve_of(sequence, num_blocks);
  kv_.find_beginning(sequence, beginning_);
  // What is taken of idle blocks is available to nobody else. Never more than max_positions needs
  // when it would run alone.
  const int64_t num_needed = num_blocks - beginning_.num_blocks() + own_reserve;
  if (num_needed + growth_reserve_ > kv_.num_available() - beginning_.num_idle) {
    return Outcome::kNoRoom;
  }
  growth_reserve_ += own_reserve;
  const int64_t num_common =
      under_way_.num_common(sequence, beginning_, kv_.max_beginning(sequence));
  const int64_t num_rows = sequence.num_known() - beginning_.num_blocks() * kv_.block_size();
  const bool is_worth_waiting = 2 * num_common * kv_.block_size() >= num_rows;
  if (is_worth_waiting && sequence.num_deferrals < kMaxDeferrals) {
    ++sequence.num_deferrals;
    growth_reserve_ += num_blocks - beginning_.num_blocks() - num_common;
    take_from_waiting(sequence);
    deferred_.push_back(&sequence);
    return Outcome::kDeferred;
  }
  admit(sequence, num_blocks);
  return Outcome::kAdmitted;
}

// Only those as good as it keep a reserve: it may take that of the others. Nothing of the step is
// planned yet, so nothing is under way.
void Scheduler::admit_better() {
  while (!running_.empty()) {
    Sequence* const sequence = choose();
    if (sequence == nullptr || sequence->priority >= running_.back()->priority) return;
    growth_reserve_ = 0;
    int64_t num_held_by_worse = 0;
    for (const Sequence* other : running_) {
      const int64_t num_blocks = static_cast<int64_t>(other->blocks.size());
      if (other->priority > sequence->priority) {
        num_held_by_worse += num_blocks;
      } else {
        growth_reserve_ += reserve_of(*other, num_blocks);
      }
    }
    // Where all of theirs would not do, nobody is preempted.
    const int64_t num_blocks = kv_.blocks_for(sequence->num_known());
    kv_.find_beginning(*sequence, beginning_);
    const int64_t least = num_blocks - beginning_.num_blocks() + beginning_.num_idle +
                          reserve_of(*sequence, num_blocks) + growth_reserve_;
    if (least > kv_.num_available() + num_held_by_worse) return;
    while (!has_place() || try_admit(*sequence) == Outcome::kNoRoom) {
      if (running_.back()->priority <= sequence->priority) return;
      preempt_last();
      if (running_.empty()) return;  // it is admitted with the others
    }
  }
}

void Scheduler::admit(Sequence& sequence, int64_t num_blocks) {
  sequence.was_admitted ? take_from_waiting(sequence) : overtake(sequence);
  kv_.begin(sequence, beginning_, num_blocks);
  sequence.state = Sequence::State::kRunning;
  count_admission(sequence);
  sequence.was_admitted = true;
  // Usually the last, but not when it was preempted or deferred while newer ones were admitted.
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, ComesFirst()),
                  &sequence);
  const ActiveRequest& request = *sequence.request;
  ranker_.on_start(request.request.prompt_ids, sequence.request->affinity);
  if (options_.on_admitted) {
    options_.on_admitted(sequence.age, request.request.prompt_ids, sequence.num_computed);
  }
}

void Scheduler::count_admission(Sequence& sequence) {
  ActiveRequest& request = *sequence.request;
  if (!sequence.was_admitted) queue_.count_prompt(sequence, sequence.num_pending());
  if (request.was_admitted) return;
  request.was_admitted = true;
  if (!kv_.keeps_prefixes()) return;
  request.num_cached_tokens = sequence.num_computed;
  counters_.prefix_query_tokens += static_cast<int64_t>(request.request.prompt_ids.size());
  counters_.prefix_hit_tokens += sequence.num_computed;
}

void Scheduler::wait_again(Sequence& sequence) {
  if (sequence.was_admitted) {
    preempted_.insert(&sequence);
  } else {
    queue_.put_back(sequence);
  }
}

// It leaves the queue past those before it.
void Scheduler::overtake(Sequence& sequence) {
  const SequenceOrder& order = sequence.request->tenant->waiting;
  const Sequence& oldest = **order.begin();
  if (&oldest == &sequence) return queue_.erase(sequence);
  // The ages before that of the oldest are taken in turn, so those who pass it keep their order.
  const int64_t age = oldest.age - (options_.affinity.max_overtakes - oldest.num_overtaken);
  for (Sequence* other : order) {
    if (other == &sequence) break;
    ++other->num_overtaken;
  }
  queue_.erase(sequence);
  sequence.age = age;
  ++counters_.reordered_admissions;
}

void Scheduler::take_from_waiting(Sequence& sequence) {
  if (sequence.was_admitted) {
    preempted_.erase(&sequence);
  } else {
    queue_.erase(sequence);
  }
}

}  // namespace augur
