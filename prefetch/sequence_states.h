// What a predictor remembers of each sequence, within bounds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

namespace augur {

/// States by sequence. One that was not asked for in `max_idle_steps` steps is forgotten, and so is
/// the one idle longest where there would be more than `max_sequences`; only a step with more
/// sequences than that has more. Memory is kept for new sequences, so that a server that runs on
/// allocates nothing here.
/// Threading: one thread.
template <typename State>
class SequenceStates {
 public:
  SequenceStates(int64_t max_idle_steps, size_t max_sequences)
      : max_idle_steps_(max_idle_steps), max_sequences_(max_sequences) {}

  /// A step begins.
  void on_step() {
    ++step_;
    // Rarely, for it looks at all of them.
    if (step_ % kStepsPerSweep != 0) return;
    for (auto it = states_.begin(); it != states_.end();) {
      const bool is_idle = step_ - it->second.last_step > max_idle_steps_;
      it = is_idle ? free(it) : std::next(it);
    }
  }

  /// The state of a sequence and whether it is new; valid until it is forgotten, not in this step.
  /// `make` returns a std::unique_ptr<State>; a state whose sequence was forgotten is clear()ed and
  /// used again instead.
  template <typename Make>
  std::pair<State*, bool> get(int64_t sequence_id, const Make& make) {
    const auto found = states_.find(sequence_id);
    if (found != states_.end()) {
      found->second.last_step = step_;
      return {found->second.state.get(), false};
    }
    if (states_.size() >= max_sequences_) forget_oldest();
    std::unique_ptr<State> state;
    if (free_.empty()) {
      state = make();
    } else {
      state = std::move(free_.back());
      free_.pop_back();
      state->clear();
    }
    State* const kept = state.get();
    states_.emplace(sequence_id, Entry{std::move(state), step_});
    return {kept, true};
  }

  size_t size() const { return states_.size(); }

 private:
  static constexpr int64_t kStepsPerSweep = 16;

  struct Entry {
    std::unique_ptr<State> state;
    int64_t last_step = 0;
  };
  using Map = std::unordered_map<int64_t, Entry>;

  typename Map::iterator free(typename Map::iterator it) {
    free_.push_back(std::move(it->second.state));
    return states_.erase(it);
  }

  void forget_oldest() {
    auto oldest = states_.begin();
    for (auto it = states_.begin(); it != states_.end(); ++it) {
      if (it->second.last_step < oldest->second.last_step) oldest = it;
    }
    if (oldest != states_.end() && oldest->second.last_step < step_) free(oldest);
  }

  const int64_t max_idle_steps_;
  const size_t max_sequences_;
  int64_t step_ = 0;
  Map states_;
  std::vector<std::unique_ptr<State>> free_;
};

}  // namespace augur
