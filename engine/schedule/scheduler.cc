#include "engine/schedule/scheduler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

// Sequences are at their longest at different times, so less than the sum of their growth is set
// aside. Measured with fixed lengths in caches of 2 to 30 sequences: all of it leaves up to a fifth
// of the cache unused; half of it recomputes up to 40 % of the rows, this up to 25 %, mostly 5 %.
constexpr double kReservedShare = 0.75;

// How fast the lengths seen so far are forgotten: about 16 sequences.
constexpr double kLengthShareStep = 1.0 / 16;

// Far more than anyone would wait for, and few enough that ages never run out.
constexpr int64_t kMaxOvertakes = 1 << 20;

bool reorders(SchedulePolicy policy) {
  return policy == SchedulePolicy::kExpertAffinity || policy == SchedulePolicy::kLongestPrefixMatch;
}

}  // namespace

Scheduler::Scheduler(const ScheduleLimits& limits, const ScheduleOptions& options)
    : limits_(limits),
      options_(options),
      ranker_(options.policy == SchedulePolicy::kExpertAffinity ? options.affinity.oracle
                                                                : nullptr),
      kv_(limits.num_blocks, limits.block_size, options.prefix_cache),
      queue_(options.fair_queueing),
      under_way_(limits.block_size) {
  AUGUR_REQUIRE(limits.max_running >= 1, "max_running is " + std::to_string(limits.max_running));
  AUGUR_REQUIRE(limits.max_rows >= 1, "max_rows is " + std::to_string(limits.max_rows));
  AUGUR_REQUIRE(limits.num_blocks >= 1, "num_blocks is " + std::to_string(limits.num_blocks));
  const AffinityOptions& affinity = options.affinity;
  AUGUR_REQUIRE(affinity.window >= 1, "window is " + std::to_string(affinity.window));
  AUGUR_REQUIRE(affinity.max_overtakes >= 0 && affinity.max_overtakes <= kMaxOvertakes,
                "max_overtakes is " + std::to_string(affinity.max_overtakes));
  AUGUR_REQUIRE(options.policy != SchedulePolicy::kExpertAffinity || affinity.oracle != nullptr,
                "expert affinity without an oracle");
}

void Scheduler::add(ActiveRequest& request) {
  for (Sequence& sequence : request.sequences) {
    AUGUR_REQUIRE(kv_.blocks_for(sequence.max_positions) <= limits_.num_blocks,
                  "a sequence may grow to " + std::to_string(sequence.max_positions) +
                      " positions, beyond the " + std::to_string(limits_.num_blocks) +
                      " KV blocks of " + std::to_string(limits_.block_size));
  }
  kv_.open(request);
  queue_.open(request);
  request.num_live = static_cast<int>(request.sequences.size());
  // Whoever overtakes a sequence takes an age between its own and that of the one before it: there
  // are as many as it can be overtaken times.
  const int64_t age_step = reorders(options_.policy) ? options_.affinity.max_overtakes + 1 : 1;
  for (Sequence& sequence : request.sequences) {
    sequence.age = next_age_;
    next_age_ += age_step;
    if (options_.policy == SchedulePolicy::kPriority) sequence.priority = request.request.priority;
    sequence.state = Sequence::State::kWaiting;
    queue_.add(sequence);
  }
}

const std::vector<ScheduledRows>& Scheduler::plan() {
  plan_.clear();
  under_way_.clear();
  num_rows_left_ = limits_.max_rows;
  if (options_.policy == SchedulePolicy::kPriority) admit_better();
  plan_decode();
  plan_prefill();
  admit_waiting();
  return plan_;
}

// Only sequences after the one that grows are preempted: they come later in running_, so none has
// its row in the plan yet.
void Scheduler::plan_decode() {
  for (size_t i = 0; i < running_.size() && num_rows_left_ > 0; ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.num_pending() != 1 || !grow(sequence)) continue;
    plan_.push_back({&sequence, 1, sequence.num_computed});
    --num_rows_left_;
  }
}

// Chunks. Their blocks are there since admission.
void Scheduler::plan_prefill() {
  growth_reserve_ = 0;
  for (Sequence* sequence : running_) {
    growth_reserve_ += reserve_of(*sequence, static_cast<int64_t>(sequence->blocks.size()));
    if (sequence->num_pending() > 1 && num_rows_left_ > 0) push_rows(*sequence);
  }
}

void Scheduler::admit_waiting() {
  const auto num_placed = [this] { return num_running() + static_cast<int64_t>(deferred_.size()); };
  while (num_rows_left_ > 0 && num_placed() < limits_.max_running) {
    Sequence* sequence = choose();
    if (sequence == nullptr) break;
    Outcome outcome = try_admit(*sequence);
    if (outcome == Outcome::kNoRoom && !sequence->was_admitted) {
      Sequence* const oldest = *queue_.turn().begin();
      if (sequence != oldest) outcome = try_admit(*oldest);
      sequence = oldest;
    }
    if (outcome == Outcome::kNoRoom) break;
    if (outcome == Outcome::kAdmitted) push_rows(*sequence);
  }
  for (Sequence* sequence : deferred_) wait_again(*sequence);
  deferred_.clear();
}

void Scheduler::push_rows(Sequence& sequence) {
  const int64_t num_rows = std::min(sequence.num_pending(), num_rows_left_);
  plan_.push_back({&sequence, num_rows, sequence.num_computed});
  num_rows_left_ -= num_rows;
  if (num_waiting() > 0) under_way_.add(sequence, plan_.back().end());
}

void Scheduler::commit(std::span<const ScheduledRows> computed) {
  for (const ScheduledRows& rows : computed) {
    if (rows.sequence == nullptr) continue;
    Sequence& sequence = *rows.sequence;
    sequence.num_computed += rows.num_rows;
    if (rows.first_position < sequence.prompt_rows) kv_.share_prompt(sequence);
    if (sequence.generates && sequence.num_pending() == 0) queue_.count_output(*sequence.request);
  }
}

bool Scheduler::try_grow(Sequence& sequence, int64_t num_positions) {
  return kv_.try_grow(sequence, kv_.blocks_for(num_positions));
}

bool Scheduler::could_admit() {
  if (num_waiting() == 0) return false;
  if (has_place()) return true;
  return options_.policy == SchedulePolicy::kPriority &&
         choose()->priority < running_.back()->priority;
}

void Scheduler::end(Sequence& sequence) {
  ActiveRequest& request = *sequence.request;
  switch (sequence.state) {
    case Sequence::State::kWaiting:
      take_from_waiting(sequence);
      break;
    case Sequence::State::kRunning:
      if (sequence.generates) learn_length(sequence);
      kv_.take_back(sequence);
      remove_from_running(sequence);
      break;
    case Sequence::State::kEnded:
      return;
  }
  sequence.state = Sequence::State::kEnded;
  if (--request.num_live > 0) return;
  kv_.close(request);
  queue_.close(request);
}

int64_t Scheduler::reserve_of(const Sequence& sequence, int64_t num_blocks) const {
  const int64_t most = kv_.blocks_for(sequence.max_positions);
  if (num_blocks >= most) return 0;
  const int64_t at_first = kv_.blocks_for(sequence.prompt_rows);
  const double at_last =
      static_cast<double>(at_first) + length_share_ * static_cast<double>(most - at_first);
  const double growth = at_last - static_cast<double>(num_blocks);
  return std::max<int64_t>(1, std::llround(kReservedShare * growth));
}

void Scheduler::learn_length(const Sequence& sequence) {
  const double most = static_cast<double>(sequence.max_length - sequence.prompt_rows);
  const double share = static_cast<double>(sequence.completion.output_ids.size()) / most;
  length_share_ += kLengthShareStep * (share - length_share_);
}

bool Scheduler::grow(Sequence& sequence) {
  const int64_t num_blocks = kv_.blocks_for(sequence.num_known());
  while (!kv_.try_grow(sequence, num_blocks)) {
    const bool is_last = running_.back() == &sequence;
    preempt_last();
    if (is_last) return false;
  }
  return true;
}

void Scheduler::preempt_last() {
  Sequence& sequence = *running_.back();
  running_.pop_back();
  ranker_.on_stop(sequence.request->affinity);
  kv_.take_back(sequence);
  sequence.state = Sequence::State::kWaiting;
  preempted_.insert(&sequence);
  ++counters_.preemptions;
}

void Scheduler::remove_from_running(Sequence& sequence) {
  ranker_.on_stop(sequence.request->affinity);
  running_.erase(std::lower_bound(running_.begin(), running_.end(), &sequence, ComesFirst()));
}

}  // namespace augur
