#include "cache/expert_pool.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "kernels/require.h"

namespace augur {
namespace {

// Experts that decoding used within so many steps stay when a prompt or a prediction wants room: of
// a token's experts 93 % are among those of the 32 tokens before (Qwen3-30B-A3B).
constexpr int64_t kDecodeMemorySteps = 32;

// A prompt runs its experts through at least so many slots of a layer besides those that decoding
// holds, so that several can be on their way.
constexpr int kPromptSlots = 4;

int checked_floor(const ExpertPoolShape& shape) {
  AUGUR_REQUIRE(shape.num_layers > 0 && shape.num_experts > 0 && shape.num_moe_layers > 0,
                "no experts");
  AUGUR_REQUIRE(shape.top_k > 0 && shape.num_slots >= shape.top_k,
                std::to_string(shape.num_slots) + " slots, top " + std::to_string(shape.top_k));
  return shape.num_slots > shape.num_moe_layers * shape.top_k ? shape.top_k : 0;
}

}  // namespace

ExpertPool::ExpertPool(const ExpertPoolShape& shape,
                       std::unique_ptr<EvictionPolicy> policy,
                       ExpertFetcher& fetcher,
                       ExpertCounters& counters)
    : shape_(shape),
      policy_(std::move(policy)),
      fetcher_(fetcher),
      counters_(counters),
      layer_floor_(checked_floor(shape)),
      slots_(shape.num_slots),
      slot_of_(static_cast<size_t>(shape.num_layers) * shape.num_experts, -1),
      fetch_slot_of_(slot_of_.size(), -1),
      left_for_(slot_of_.size()),
      num_resident_(shape.num_layers),
      num_held_(shape.num_layers),
      wants_(shape.num_experts) {
  empty_slots_.reserve(shape.num_slots);
  for (int slot = shape.num_slots - 1; slot >= 0; --slot) empty_slots_.push_back(slot);
  wanted_.reserve(shape.num_experts);
  leased_.reserve(shape.num_experts);
}

ExpertPool::~ExpertPool() {
  for (int slot = 0; slot < shape_.num_slots; ++slot) {
    if (slots_[slot].state == SlotState::kFetching) fetcher_.cancel(slot);
  }
  try {
    while (num_fetching_ > 0) take_ended(/*wait=*/true);
  } catch (const std::exception&) {
    // The fetcher is broken; there is nobody left to tell.
  }
}

const int32_t* ExpertPool::slots_of(int layer) const {
  return slot_of_.data() + index({layer, 0});
}

int ExpertPool::num_leases(ExpertKey key) const {
  return is_resident(key) ? slots_[slot_of_[index(key)]].num_leases : 0;
}

void ExpertPool::begin(int layer,
                       std::span<const int32_t> experts,
                       std::span<const int32_t> num_rows,
                       std::span<const int32_t> num_decode_rows) {
  AUGUR_REQUIRE(layer_ < 0, "layer " + std::to_string(layer_) + " is under way");
  AUGUR_REQUIRE(layer >= 0 && layer < shape_.num_layers, "layer " + std::to_string(layer));
  layer_ = layer;
  failure_.clear();
  wanted_.assign(experts.begin(), experts.end());
  // Who is wanted by few rows comes first and leaves first, so that what remains is wanted by many;
  // an expert that decodes is not made to wait for those of prompts.
  std::stable_sort(wanted_.begin(), wanted_.end(), [&](int32_t a, int32_t b) {
    const bool decodes_a = num_decode_rows[a] > 0;
    const bool decodes_b = num_decode_rows[b] > 0;
    if (decodes_a != decodes_b) return decodes_a;
    return !decodes_a && num_rows[a] < num_rows[b];
  });
  for (const int32_t expert : wanted_) {
    const Purpose purpose = num_decode_rows[expert] > 0 ? Purpose::kDecode : Purpose::kPrompt;
    AUGUR_REQUIRE(wants_[expert] == 0, "expert " + std::to_string(expert) + " is named twice");
    wants_[expert] = static_cast<uint8_t>(1 + static_cast<int>(purpose));
  }
  take_ended(/*wait=*/false);
  for (const int32_t expert : wanted_) want(expert);
  start_wanted();
}

ExpertPool::Purpose ExpertPool::purpose_of(int32_t expert) const {
  return static_cast<Purpose>(wants_[expert] - 1);
}

// Counts the use of an expert and whether it is there.
void ExpertPool::want(int32_t expert) {
  const ExpertKey key = {layer_, expert};
  ExpertUseCounts& counts = counters_.layer(layer_);
  ExpertHistory& history = counters_.history(key);
  ++counts.num_uses;
  ++history.num_uses;
  const bool is_for_decode = purpose_of(expert) == Purpose::kDecode;
  if (is_resident(key)) {
    ++counts.num_hits;
    ++history.num_hits;
    use(slot_of_[index(key)], is_for_decode);
    return;
  }
  ++counts.misses[static_cast<size_t>(cause_of_miss(key))];
  if (!is_fetching(key)) return;  // start_wanted() fetches it
  const int slot = fetch_slot_of_[index(key)];
  slots_[slot].cause = MissCause::kLatePrefetch;
  use(slot, is_for_decode);
  fetcher_.raise(slot, FetchPriority::kDemand);
}

MissCause ExpertPool::cause_of_miss(ExpertKey key) const {
  if (is_fetching(key)) return MissCause::kLatePrefetch;
  const uint8_t left_for = left_for_[index(key)];
  if (left_for == 0) return MissCause::kCold;
  switch (static_cast<Purpose>(left_for - 1)) {
    case Purpose::kDecode:
      return MissCause::kCapacity;
    case Purpose::kPrompt:
      return MissCause::kPrefillEvicted;
    case Purpose::kPrefetch:
      return MissCause::kMispredicted;
  }
  return MissCause::kCapacity;
}

void ExpertPool::use(int slot_idx, bool is_for_decode) {
  Slot& slot = slots_[slot_idx];
  policy_->on_use(slot_idx);
  if (is_for_decode) mark_decoding(slot);
  if (!slot.is_unused_prefetch) return;
  end_guess(slot);
  ++counters_.layer(slot.key.layer).num_useful_prefetches;
  // Of one that is still on its way the bytes are known, and counted, when it ends.
  if (slot.state == SlotState::kResident) counters_.useful_prefetch_bytes += slot.read_bytes;
}

void ExpertPool::mark_decoding(Slot& slot) {
  unmark_decoding(slot);
  slot.last_decode_step = num_decode_steps_;
  ++num_decoding_[0];
}

void ExpertPool::unmark_decoding(const Slot& slot) {
  const int64_t age = num_decode_steps_ - slot.last_decode_step;
  if (slot.last_decode_step >= 0 && age < kPrefetchAgeSteps) --num_decoding_[age];
}

// A prefetch was wanted, or left.
void ExpertPool::end_guess(Slot& slot) {
  num_open_guesses_ -= !slot.is_given_up;
  slot.is_unused_prefetch = slot.is_given_up = false;
}

// Fetches what is wanted and absent, in order, until no slot can be had.
void ExpertPool::start_wanted() {
  for (const int32_t expert : wanted_) {
    const ExpertKey key = {layer_, expert};
    if (is_resident(key) || is_fetching(key)) continue;
    const MissCause cause = cause_of_miss(key);
    const int slot = take_slot(layer_, purpose_of(expert));
    if (slot < 0) return;
    start_fetch(key, slot, FetchPriority::kDemand);
    slots_[slot].cause = cause;
    use(slot, purpose_of(expert) == Purpose::kDecode);
  }
}

std::span<const int32_t> ExpertPool::next() {
  AUGUR_REQUIRE(layer_ >= 0, "no layer is under way");
  release_leases();
  take_ended(/*wait=*/false);
  while (!wanted_.empty()) {
    if (!failure_.empty()) {
      end();
      throw ExpertUnavailable(failed_key_, failure_);
    }
    start_wanted();
    for (const int32_t expert : wanted_) {
      if (is_resident({layer_, expert})) leased_.push_back(expert);
    }
    if (!leased_.empty()) break;
    AUGUR_REQUIRE(num_fetching_ > 0,
                  "nothing is being fetched for layer " + std::to_string(layer_));
    const auto start = std::chrono::steady_clock::now();
    take_ended(/*wait=*/true);
    const auto waited = std::chrono::steady_clock::now() - start;
    counters_.stall_us += std::chrono::duration_cast<std::chrono::microseconds>(waited).count();
  }
  for (const int32_t expert : leased_) {
    ++slots_[slot_of_[index({layer_, expert})]].num_leases;
    wants_[expert] = 0;
  }
  std::erase_if(wanted_, [&](int32_t expert) { return wants_[expert] == 0; });
  counters_.num_passes += !leased_.empty();
  return leased_;
}

void ExpertPool::end() {
  if (layer_ < 0) return;
  release_leases();
  for (const int32_t expert : wanted_) wants_[expert] = 0;
  wanted_.clear();
  layer_ = -1;
}

void ExpertPool::release_leases() {
  for (const int32_t expert : leased_) --slots_[slot_of_[index({layer_, expert})]].num_leases;
  leased_.clear();
}

PrefetchResult ExpertPool::prefetch(ExpertKey key, FetchPriority priority) {
  AUGUR_REQUIRE(key.layer >= 0 && key.layer < shape_.num_layers && key.expert >= 0 &&
                    key.expert < shape_.num_experts,
                "expert " + std::to_string(key.expert) + " of layer " + std::to_string(key.layer));
  if (is_resident(key)) return PrefetchResult::kThere;
  if (is_fetching(key)) {
    fetcher_.raise(fetch_slot_of_[index(key)], priority);
    return PrefetchResult::kThere;
  }
  const int slot = take_slot(key.layer, Purpose::kPrefetch);
  if (slot < 0) return PrefetchResult::kNoRoom;
  start_fetch(key, slot, priority);
  slots_[slot].is_unused_prefetch = true;
  ++num_open_guesses_;
  ++counters_.layer(key.layer).num_prefetches;
  ++counters_.history(key).num_prefetches;
  return PrefetchResult::kStarted;
}

void ExpertPool::give_up_prefetch(ExpertKey key) {
  const bool is_here = is_resident(key);
  if (!is_here && !is_fetching(key)) return;
  const int slot = is_here ? slot_of_[index(key)] : fetch_slot_of_[index(key)];
  if (!slots_[slot].is_unused_prefetch || slots_[slot].is_given_up) return;
  slots_[slot].is_given_up = true;
  --num_open_guesses_;
  is_here ? policy_->on_unneeded(slot) : fetcher_.cancel(slot);
}

void ExpertPool::poll() {
  take_ended(/*wait=*/false);
}

void ExpertPool::end_step(bool has_decode_rows) {
  ++counters_.num_steps;
  if (!has_decode_rows) return;
  ++num_decode_steps_;
  std::shift_right(num_decoding_.begin(), num_decoding_.end(), 1);
  num_decoding_[0] = 0;
}

int64_t ExpertPool::resident_steps(ExpertKey key) const {
  const int64_t before = counters_.history(key).resident_steps;
  if (!is_resident(key)) return before;
  return before + counters_.num_steps - slots_[slot_of_[index(key)]].filled_at_step;
}

int ExpertPool::share_of_layer() const {
  return std::max(shape_.top_k, shape_.num_slots / shape_.num_moe_layers);
}

bool ExpertPool::decodes_with(const Slot& slot) const {
  return slot.last_decode_step >= 0 &&
         slot.last_decode_step + kDecodeMemorySteps >= num_decode_steps_;
}

bool ExpertPool::is_wanted(const Slot& slot) const {
  return slot.key.layer == layer_ && wants_[slot.key.expert] != 0;
}

bool ExpertPool::is_idle(int slot_idx) const {
  const Slot& slot = slots_[slot_idx];
  return slot.state == SlotState::kResident && slot.num_leases == 0 && !is_wanted(slot);
}

int ExpertPool::take_slot(int layer, Purpose purpose) {
  const bool may_take_empty = purpose != Purpose::kPrompt || may_grow(layer);
  if (may_take_empty && !empty_slots_.empty()) {
    const int slot = empty_slots_.back();
    empty_slots_.pop_back();
    return slot;
  }
  const int slot = victim_for(layer, purpose);
  if (slot >= 0) evict(slot, purpose);
  return slot;
}

// Whether a prompt may take slots from other layers.
bool ExpertPool::may_grow(int layer) const {
  if (num_held_[layer] < share_of_layer()) return true;
  int num_for_prompt = 0;
  for (const Slot& slot : slots_) {
    num_for_prompt +=
        slot.state != SlotState::kEmpty && slot.key.layer == layer && !decodes_with(slot);
  }
  return num_for_prompt < kPromptSlots;
}

template <typename Choose>
int ExpertPool::victim_for_prompt(int layer, const Choose& choose) const {
  const bool takes_from_others = may_grow(layer);
  int victim = choose([&](const Slot& slot) {
    const bool has_too_many = takes_from_others && num_held_[slot.key.layer] > share_of_layer();
    return !decodes_with(slot) && (has_too_many || slot.key.layer == layer);
  });
  if (victim < 0 && takes_from_others) {
    victim = choose([&](const Slot& slot) { return !decodes_with(slot); });
  }
  const bool has_something_to_run =
      std::any_of(wanted_.begin(), wanted_.end(), [&](int32_t expert) {
        return is_resident({layer, expert}) || is_fetching({layer, expert});
      });
  if (victim >= 0 || has_something_to_run) return victim;
  victim = choose([&](const Slot& slot) { return slot.key.layer == layer; });
  return victim >= 0 ? victim : choose([](const Slot&) { return true; });
}

bool ExpertPool::may_yield_to_guess(const Slot& slot) const {
  if (slot.is_unused_prefetch) return slot.is_given_up;
  return slot.last_decode_step + kPrefetchAgeSteps <= num_decode_steps_;
}

int ExpertPool::victim_for(int layer, Purpose purpose) const {
  const auto leaves_floor = [&](const Slot& slot) {
    return slot.key.layer == layer || num_held_[slot.key.layer] > layer_floor_;
  };
  const auto any = [&](int i) { return is_idle(i) && leaves_floor(slots_[i]); };
  const auto choose = [&](const auto& admits) {
    return policy_->choose_victim([&](int i) { return any(i) && admits(slots_[i]); });
  };
  switch (purpose) {
    case Purpose::kDecode:
      return policy_->choose_victim(any);
    case Purpose::kPrompt:
      return victim_for_prompt(layer, choose);
    case Purpose::kPrefetch:
      // Often decoding holds all of them: that is known without a look at each.
      if (num_open_guesses_ + std::accumulate(num_decoding_.begin(), num_decoding_.end(), 0) ==
          shape_.num_slots) {
        return -1;
      }
      return choose([&](const Slot& slot) { return may_yield_to_guess(slot); });
  }
  return -1;
}

void ExpertPool::evict(int slot_idx, Purpose purpose) {
  Slot& slot = slots_[slot_idx];
  left_for_[index(slot.key)] = static_cast<uint8_t>(1 + static_cast<int>(purpose));
  slot_of_[index(slot.key)] = -1;
  --num_resident_[slot.key.layer];
  counters_.history(slot.key).resident_steps += counters_.num_steps - slot.filled_at_step;
  policy_->on_evict(slot_idx);
  leave(slot);
}

// What a slot's expert leaves behind.
void ExpertPool::leave(Slot& slot) {
  --num_held_[slot.key.layer];
  if (slot.is_unused_prefetch) {
    ++counters_.layer(slot.key.layer).num_wasted_prefetches;
    counters_.wasted_prefetch_bytes += slot.read_bytes;
    end_guess(slot);
  }
  unmark_decoding(slot);
  slot = {};
}

void ExpertPool::start_fetch(ExpertKey key, int slot_idx, FetchPriority priority) {
  slots_[slot_idx].state = SlotState::kFetching;
  slots_[slot_idx].key = key;
  fetch_slot_of_[index(key)] = slot_idx;
  ++num_held_[key.layer];
  ++num_fetching_;
  policy_->on_fill(slot_idx, key);
  fetcher_.start(key, slot_idx, priority);
}

void ExpertPool::take_ended(bool wait) {
  if (num_fetching_ == 0) return;
  for (const FetchEnd& end : fetcher_.take_ended(wait)) take_end(end);
}

void ExpertPool::take_end(const FetchEnd& end) {
  Slot& slot = slots_.at(end.slot);
  AUGUR_REQUIRE(slot.state == SlotState::kFetching && slot.key == end.key,
                "slot " + std::to_string(end.slot) + " was not being fetched");
  --num_fetching_;
  fetch_slot_of_[index(slot.key)] = -1;
  slot.read_bytes = end.read_bytes;
  if (!slot.is_unused_prefetch) {
    counters_.demand_bytes_by_cause[static_cast<size_t>(slot.cause)] += end.read_bytes;
  }
  if (end.outcome == FetchOutcome::kDone) {
    slot.state = SlotState::kResident;
    slot.filled_at_step = counters_.num_steps;
    slot_of_[index(slot.key)] = end.slot;
    ++num_resident_[slot.key.layer];
    // It was given up, yet all but done.
    if (slot.is_given_up) policy_->on_unneeded(end.slot);
    return;
  }
  if (end.outcome == FetchOutcome::kFailed) {
    ++counters_.num_failed_fetches;
    if (is_wanted(slot)) {
      failed_key_ = slot.key;
      failure_ = end.error;
    }
  }
  policy_->on_evict(end.slot);
  leave(slot);
  empty_slots_.push_back(end.slot);
}

}  // namespace augur
