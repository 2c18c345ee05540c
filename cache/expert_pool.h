// A fixed number of slots that the experts of all layers share.
//
// An expert is absent, fetching, resident or leased. A leased expert, or one that is being fetched,
// is never evicted; who else gives way is the eviction policy's choice, within these bounds:
// - A layer keeps top_k experts against the other layers, where there are slots enough for that.
// - A prompt's experts replace those of their own layer first and take no more of the other layers'
//   slots than make up an equal share, and experts that decoding used of late stay: a long prompt
//   does not flush what others are decoding with. Those that most of its rows want remain.
// - A predicted expert takes a slot only from what has not been used for a while.
//
// The pool decides and counts; it holds no memory and reads no files. So it serves every backend,
// and the replay of recorded routing runs the same code.
// Threading: one thread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "cache/eviction_policy.h"
#include "cache/expert_counters.h"
#include "cache/expert_fetcher.h"
#include "cache/expert_key.h"

namespace augur {

/// An expert that a layer needs could not be read.
class ExpertUnavailable : public std::runtime_error {
 public:
  ExpertUnavailable(ExpertKey unavailable, const std::string& reason)
      : std::runtime_error(reason), key(unavailable) {}
  ExpertKey key;
};

struct ExpertPoolShape {
  int num_layers = 0;  // of the model, those without experts too
  int num_moe_layers = 0;
  int num_experts = 0;  // of a layer
  int num_slots = 0;
  int top_k = 0;
};

enum class PrefetchResult : uint8_t {
  kStarted,
  kThere,   // resident, or on its way
  kNoRoom,  // no slot whose expert is worth less
};

class ExpertPool {
 public:
  /// `fetcher` and `counters` outlive the pool. Requires num_slots >= top_k >= 1 and a policy over
  /// as many slots.
  ExpertPool(const ExpertPoolShape& shape,
             std::unique_ptr<EvictionPolicy> policy,
             ExpertFetcher& fetcher,
             ExpertCounters& counters);
  /// Cancels what is being fetched and waits for it.
  ~ExpertPool();
  ExpertPool(const ExpertPool&) = delete;
  ExpertPool& operator=(const ExpertPool&) = delete;

  /// By expert of a layer, its slot, or -1 where it is not resident. Stays where it is.
  const int32_t* slots_of(int layer) const;

  /// Rows want `experts` of `layer`, each named once. `num_rows[e]` says how many rows want expert
  /// e, and `num_decode_rows[e]` how many of these decode. Counts hits and misses, and begins to
  /// fetch what is absent, as far as there are slots.
  void begin(int layer,
             std::span<const int32_t> experts,
             std::span<const int32_t> num_rows,
             std::span<const int32_t> num_decode_rows);
  /// Ends the leases on those returned before, then leases all of the wanted that are resident, or
  /// waits until one is. Empty when all were returned. Throws ExpertUnavailable; the layer is then
  /// at its end.
  std::span<const int32_t> next();
  /// Ends the leases that are left. What is being fetched goes on.
  void end();

  /// Begins to fetch an expert that will be wanted, as it seems. Never waits.
  PrefetchResult prefetch(ExpertKey key, FetchPriority priority);
  /// Where `key` was prefetched and not wanted yet, it was a wrong guess: it is cancelled, or goes
  /// first when room is needed.
  void give_up_prefetch(ExpertKey key);
  /// Takes note of fetches that have ended. Never waits.
  void poll();

  /// Once after every step; `has_decode_rows`: whether any of its rows decoded.
  void end_step(bool has_decode_rows);

  bool is_resident(ExpertKey key) const { return slot_of_[index(key)] >= 0; }
  bool is_fetching(ExpertKey key) const { return fetch_slot_of_[index(key)] >= 0; }
  /// Resident ones of a layer.
  int num_resident(int layer) const { return num_resident_.at(layer); }
  int num_fetching() const { return num_fetching_; }
  /// Steps at whose end an expert lay in the pool.
  int64_t resident_steps(ExpertKey key) const;
  int num_leases(ExpertKey key) const;
  const ExpertPoolShape& shape() const { return shape_; }

 private:
  enum class SlotState : uint8_t { kEmpty, kFetching, kResident };
  enum class Purpose : uint8_t { kDecode, kPrompt, kPrefetch };
  struct Slot {
    SlotState state = SlotState::kEmpty;
    ExpertKey key;
    int num_leases = 0;
    bool is_unused_prefetch = false;     // brought by a prediction, not wanted yet
    bool is_given_up = false;            // such a one that its layer went without
    MissCause cause = MissCause::kCold;  // of a fetch on demand
    int64_t read_bytes = 0;
    int64_t last_decode_step = -1;  // of num_decode_steps_
    int64_t filled_at_step = 0;     // of counters_.num_steps
  };

  size_t index(ExpertKey key) const {
    return static_cast<size_t>(key.layer) * shape_.num_experts + key.expert;
  }
  int share_of_layer() const;
  bool decodes_with(const Slot& slot) const;
  bool is_wanted(const Slot& slot) const;
  bool is_idle(int slot) const;
  MissCause cause_of_miss(ExpertKey key) const;
  Purpose purpose_of(int32_t expert) const;
  void want(int32_t expert);
  void use(int slot, bool is_for_decode);
  void mark_decoding(Slot& slot);
  void unmark_decoding(const Slot& slot);
  void end_guess(Slot& slot);
  /// A slot for `key`, emptied where it was not; -1 when none can be had now.
  int take_slot(int layer, Purpose purpose);
  bool may_yield_to_guess(const Slot& slot) const;
  int victim_for(int layer, Purpose purpose) const;
  bool may_grow(int layer) const;
  template <typename Choose>
  int victim_for_prompt(int layer, const Choose& choose) const;
  void evict(int slot, Purpose purpose);
  void start_fetch(ExpertKey key, int slot, FetchPriority priority);
  void start_wanted();
  void take_ended(bool wait);
  void take_end(const FetchEnd& end);
  void leave(Slot& slot);
  void release_leases();

  // A prediction takes no slot that decoding used in this step or the last one: that is likelier to
  // be wanted again than most guesses to come true.
  static constexpr int64_t kPrefetchAgeSteps = 2;

  // Constant after construction.
  const ExpertPoolShape shape_;
  const std::unique_ptr<EvictionPolicy> policy_;
  ExpertFetcher& fetcher_;
  ExpertCounters& counters_;
  const int layer_floor_;  // experts that a layer keeps against the others

  std::vector<Slot> slots_;
  std::vector<int> empty_slots_;
  std::vector<int32_t> slot_of_;        // by index(): resident in, or -1
  std::vector<int32_t> fetch_slot_of_;  // by index(): being fetched into, or -1
  std::vector<uint8_t> left_for_;  // by index(): 0 never came, else 1 + the Purpose it left for
  std::vector<int> num_resident_;  // by layer
  std::vector<int> num_held_;      // by layer: resident or being fetched
  int num_fetching_ = 0;
  int64_t num_decode_steps_ = 0;
  // Slots last used for decoding in the step under way, in the one before, and so on.
  std::array<int, kPrefetchAgeSteps> num_decoding_ = {};
  int num_open_guesses_ = 0;  // unused prefetches that were not given up

  // The layer under way.
  int layer_ = -1;
  std::vector<int32_t> wanted_;  // not returned by next() yet, in the order in which to fetch
  std::vector<uint8_t> wants_;   // by expert: 1 + Purpose while it is in wanted_
  std::vector<int32_t> leased_;  // returned by the last next()
  std::string failure_;          // of a wanted expert
  ExpertKey failed_key_;
};

}  // namespace augur
