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

}  // namespace

Scheduler::Scheduler(const ScheduleLimits& limits, const AffinityOptions& affinity)
    : limits_(limits),
      affinity_(affinity),
      ranker_(affinity.oracle),
      allocator_(limits.num_blocks) {
  AUGUR_REQUIRE(limits.max_running >= 1, "max_running is " + std::to_string(limits.max_running));
  AUGUR_REQUIRE(limits.max_rows >= 1, "max_rows is " + std::to_string(limits.max_rows));
  AUGUR_REQUIRE(limits.num_blocks >= 1, "num_blocks is " + std::to_string(limits.num_blocks));
  AUGUR_REQUIRE(limits.block_size >= 1, "block_size is " + std::to_string(limits.block_size));
  AUGUR_REQUIRE(affinity.window >= 1, "window is " + std::to_string(affinity.window));
  AUGUR_REQUIRE(affinity.max_overtakes >= 0 && affinity.max_overtakes <= kMaxOvertakes,
                "max_overtakes is " + std::to_string(affinity.max_overtakes));
}

void Scheduler::add(ActiveRequest& request) {
  for (Sequence& sequence : request.sequences) {
    AUGUR_REQUIRE(blocks_for(sequence.max_positions) <= limits_.num_blocks,
                  "a sequence may grow to " + std::to_string(sequence.max_positions) +
                      " positions, beyond the " + std::to_string(limits_.num_blocks) +
                      " KV blocks of " + std::to_string(limits_.block_size));
  }
  request.num_live = static_cast<int>(request.sequences.size());
  // The last prompt token is always computed by each sequence: its row has the first logits.
  const int64_t num_prompt = static_cast<int64_t>(request.request.prompt_ids.size());
  request.num_prefix_blocks = request.num_live > 1 ? (num_prompt - 1) / limits_.block_size : 0;
  // Whoever overtakes a sequence takes an age between its own and that of the one before it: there
  // are as many as it can be overtaken times.
  const int64_t age_step = affinity_.oracle == nullptr ? 1 : affinity_.max_overtakes + 1;
  for (Sequence& sequence : request.sequences) {
    sequence.age = next_age_;
    next_age_ += age_step;
    if (request.num_prefix_blocks > 0 && sequence.completion_idx > 0) {
      sequence.state = Sequence::State::kParked;
      ++num_parked_;
    } else {
      sequence.state = Sequence::State::kWaiting;
      waiting_.insert(&sequence);
    }
  }
}

const std::vector<ScheduledRows>& Scheduler::plan() {
  plan_.clear();
  int64_t num_rows_left = limits_.max_rows;

  // Decode. Only sequences newer than the one that grows are preempted: they come later in
  // running_, so none has its row in the plan yet.
  for (size_t i = 0; i < running_.size() && num_rows_left > 0; ++i) {
    Sequence& sequence = *running_[i];
    if (sequence.num_pending() != 1 || !grow(sequence)) continue;
    plan_.push_back({&sequence, 1, sequence.num_computed});
    --num_rows_left;
  }

  // Prefill chunks. Their blocks are there since admission.
  int64_t growth_reserve = 0;
  for (Sequence* sequence : running_) {
    growth_reserve += reserve_of(*sequence, static_cast<int64_t>(sequence->blocks.size()));
    const int64_t num_rows = std::min(sequence->num_pending(), num_rows_left);
    if (sequence->num_pending() == 1 || num_rows == 0) continue;
    plan_.push_back({sequence, num_rows, sequence->num_computed});
    num_rows_left -= num_rows;
  }

  while (num_rows_left > 0 && !waiting_.empty() && has_place()) {
    Sequence* sequence = &choose();
    if (!admit(*sequence, growth_reserve)) {
      Sequence* const oldest = *waiting_.begin();
      if (sequence == oldest || !admit(*oldest, growth_reserve)) break;
      sequence = oldest;
    }
    const int64_t num_rows = std::min(sequence->num_pending(), num_rows_left);
    plan_.push_back({sequence, num_rows, sequence->num_computed});
    num_rows_left -= num_rows;
  }
  return plan_;
}

void Scheduler::commit(std::span<const ScheduledRows> computed) {
  for (const ScheduledRows& rows : computed) {
    if (rows.sequence == nullptr) continue;
    Sequence& sequence = *rows.sequence;
    sequence.num_computed += rows.num_rows;
    const ActiveRequest& request = *sequence.request;
    if (request.num_prefix_blocks > 0 && request.prefix_blocks.empty() &&
        sequence.num_computed >= request.num_prefix_blocks * limits_.block_size) {
      publish_prefix(sequence);
    }
  }
}

bool Scheduler::try_grow(Sequence& sequence, int64_t num_positions) {
  const int64_t num_missing =
      blocks_for(num_positions) - static_cast<int64_t>(sequence.blocks.size());
  if (num_missing > allocator_.num_free()) return false;
  for (int64_t i = 0; i < num_missing; ++i) sequence.blocks.push_back(allocator_.allocate());
  return true;
}

void Scheduler::end(Sequence& sequence) {
  ActiveRequest& request = *sequence.request;
  switch (sequence.state) {
    case Sequence::State::kParked:
      --num_parked_;
      break;
    case Sequence::State::kWaiting:
      waiting_.erase(&sequence);
      break;
    case Sequence::State::kRunning:
      if (sequence.generates) learn_length(sequence);
      release_blocks(sequence);
      remove_from_running(sequence);
      break;
    case Sequence::State::kEnded:
      return;
  }
  sequence.state = Sequence::State::kEnded;
  if (--request.num_live == 0 && !request.prefix_blocks.empty()) drop_prefix(request);
}

int64_t Scheduler::reserve_of(const Sequence& sequence, int64_t num_blocks) const {
  const int64_t most = blocks_for(sequence.max_positions);
  if (num_blocks >= most) return 0;
  const int64_t at_first = blocks_for(sequence.prompt_rows);
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

Sequence& Scheduler::choose() {
  Sequence* best = *waiting_.begin();
  if (affinity_.oracle == nullptr || running_.empty()) return *best;
  double most = -1;  // less than any overlap: the oldest stays unless another has more than it
  int64_t num_left = affinity_.window;
  for (Sequence* sequence : waiting_) {
    if (num_left-- == 0 || sequence->was_admitted) break;
    ActiveRequest& request = *sequence->request;
    const double overlap = ranker_.overlap(request.request.prompt_ids, request.affinity);
    if (overlap > most) {
      most = overlap;
      best = sequence;
    }
    if (sequence->num_overtaken == affinity_.max_overtakes) break;
  }
  return *best;
}

bool Scheduler::admit(Sequence& sequence, int64_t& growth_reserve) {
  ActiveRequest& request = *sequence.request;
  const int64_t num_shared = static_cast<int64_t>(request.prefix_blocks.size());
  const int64_t num_blocks = blocks_for(sequence.num_known());
  const int64_t own_reserve = reserve_of(sequence, num_blocks);
  // Never more than max_positions needs when it would run alone.
  const int64_t num_needed = num_blocks - num_shared + growth_reserve + own_reserve;
  if (!free_up(num_needed, &request)) return false;

  take_from_waiting(sequence);
  sequence.state = Sequence::State::kRunning;
  sequence.was_admitted = true;
  ranker_.on_start(request.request.prompt_ids, request.affinity);
  sequence.num_computed = num_shared * limits_.block_size;
  sequence.blocks = request.prefix_blocks;
  for (const int32_t block_id : sequence.blocks) allocator_.share(block_id);
  while (static_cast<int64_t>(sequence.blocks.size()) < num_blocks) {
    sequence.blocks.push_back(allocator_.allocate());
  }
  // Usually the newest, but not when it was preempted or parked while newer ones were admitted.
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, Older()),
                  &sequence);
  growth_reserve += own_reserve;
  return true;
}

void Scheduler::take_from_waiting(Sequence& sequence) {
  auto place = waiting_.erase(waiting_.find(&sequence));
  if (place == waiting_.begin()) return;
  ++num_reordered_;
  const Sequence& oldest = **waiting_.begin();
  // The ages before that of the oldest are taken in turn, so those who pass it keep their order.
  sequence.age = oldest.age - (affinity_.max_overtakes - oldest.num_overtaken);
  while (place != waiting_.begin()) ++(**--place).num_overtaken;
}

bool Scheduler::grow(Sequence& sequence) {
  if (blocks_for(sequence.num_known()) <= static_cast<int64_t>(sequence.blocks.size())) return true;
  while (!free_up(1, /*keep=*/nullptr)) {
    const bool is_newest = running_.back() == &sequence;
    preempt_newest();
    if (is_newest) return false;
  }
  sequence.blocks.push_back(allocator_.allocate());
  return true;
}

void Scheduler::preempt_newest() {
  Sequence& sequence = *running_.back();
  running_.pop_back();
  ranker_.on_stop(sequence.request->affinity);
  release_blocks(sequence);
  sequence.state = Sequence::State::kWaiting;
  waiting_.insert(&sequence);
  ++num_preemptions_;
}

void Scheduler::release_blocks(Sequence& sequence) {
  for (const int32_t block_id : sequence.blocks) allocator_.release(block_id);
  sequence.blocks.clear();
  sequence.num_computed = 0;
}

void Scheduler::remove_from_running(Sequence& sequence) {
  ranker_.on_stop(sequence.request->affinity);
  running_.erase(std::lower_bound(running_.begin(), running_.end(), &sequence, Older()));
}

bool Scheduler::free_up(int64_t num_blocks, const ActiveRequest* keep) {
  if (allocator_.num_free() >= num_blocks) return true;
  // Whoever shares a prefix holds all of its blocks.
  const auto is_idle = [&](const ActiveRequest& request) {
    return &request != keep && allocator_.num_holders(request.prefix_blocks[0]) == 1;
  };
  int64_t num_idle = 0;
  for (const ActiveRequest* request : prefixed_) {
    if (is_idle(*request)) num_idle += request->num_prefix_blocks;
  }
  if (allocator_.num_free() + num_idle < num_blocks) return false;
  for (size_t i = prefixed_.size(); allocator_.num_free() < num_blocks;) {
    ActiveRequest& request = *prefixed_[--i];
    if (is_idle(request)) drop_prefix(request);
  }
  return true;
}

void Scheduler::drop_prefix(ActiveRequest& request) {
  for (const int32_t block_id : request.prefix_blocks) allocator_.release(block_id);
  request.prefix_blocks.clear();
  prefixed_.erase(std::find(prefixed_.begin(), prefixed_.end(), &request));
}

void Scheduler::publish_prefix(const Sequence& sequence) {
  ActiveRequest& request = *sequence.request;
  request.prefix_blocks.assign(sequence.blocks.begin(),
                               sequence.blocks.begin() + request.num_prefix_blocks);
  for (const int32_t block_id : request.prefix_blocks) allocator_.share(block_id);
  prefixed_.push_back(&request);
  for (Sequence& sibling : request.sequences) {
    if (sibling.state != Sequence::State::kParked) continue;
    sibling.state = Sequence::State::kWaiting;
    waiting_.insert(&sibling);
    --num_parked_;
  }
}

}  // namespace augur
