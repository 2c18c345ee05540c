#include "tools/affinity/run.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "cache/eviction_policy.h"
#include "engine/schedule/scheduler.h"
#include "kernels/require.h"

namespace augur {
namespace {

// Enough that memory for keys and values is never what limits a batch.
constexpr int64_t kNumBlocks = 1 << 20;
constexpr int kBlockSize = 16;
constexpr int64_t kMaxRows = 2048;

/// Which experts are in fast memory.
class Pool {
 public:
  Pool(int num_layers, int num_experts, double share)
      : num_experts_(num_experts),
        slot_of_key_(static_cast<size_t>(num_layers) * num_experts, -1),
        key_of_slot_(
            std::max<int64_t>(1, std::llround(share * static_cast<double>(slot_of_key_.size())))),
        pinned_at_(key_of_slot_.size(), -1),
        policy_(make_lru_policy(static_cast<int>(key_of_slot_.size()))) {}

  bool has(ExpertKey key) const { return slot_of_key_[index(key)] >= 0; }
  /// Experts used from now on are kept until the next begin_layer().
  void begin_layer() { ++layer_use_; }
  /// Requires has(key).
  void use(ExpertKey key) {
    const int slot = slot_of_key_[index(key)];
    policy_->on_use(slot);
    pinned_at_[slot] = layer_use_;
  }
  void fetch(ExpertKey key) {
    int slot = num_filled_;
    if (num_filled_ < static_cast<int>(key_of_slot_.size())) {
      ++num_filled_;
    } else {
      slot = policy_->choose_victim([this](int s) { return pinned_at_[s] != layer_use_; });
      if (slot < 0) {  // the layer wants more than there is: it is computed in parts
        begin_layer();
        slot = policy_->choose_victim([](int) { return true; });
      }
      policy_->on_evict(slot);
      slot_of_key_[index(key_of_slot_[slot])] = -1;
    }
    key_of_slot_[slot] = key;
    slot_of_key_[index(key)] = slot;
    policy_->on_fill(slot, key);
    use(key);
  }

 private:
  size_t index(ExpertKey key) const {
    return static_cast<size_t>(key.layer) * num_experts_ + key.expert;
  }

  const int num_experts_;
  std::vector<int> slot_of_key_;  // -1: not there
  std::vector<ExpertKey> key_of_slot_;
  std::vector<int64_t> pinned_at_;
  std::unique_ptr<EvictionPolicy> policy_;
  int num_filled_ = 0;
  int64_t layer_use_ = 0;
};

/// A prompt is one token: the index of its request.
class IndexOracle : public AffinityOracle {
 public:
  explicit IndexOracle(const std::vector<const ExpertSignature*>& known) : known_(known) {}
  const ExpertSignature* signature_of(std::span<const int32_t> prompt_ids) override {
    return known_[prompt_ids[0]];
  }

 private:
  const std::vector<const ExpertSignature*>& known_;
};

class Run {
 public:
  Run(const RoutedWorkload& workload,
      const std::vector<int>& order,
      const AffinityRunOptions& options)
      : workload_(workload),
        options_(options),
        oracle_(options.known),
        scheduler_({.max_running = options.batch,
                    .max_rows = kMaxRows,
                    .num_blocks = kNumBlocks,
                    .block_size = kBlockSize},
                   {.oracle = options.known.empty() ? nullptr : &oracle_,
                    .window = options.window,
                    .max_overtakes = options.max_overtakes}),
        pool_(workload.num_layers, workload.num_experts, options.pool_share),
        wants_(workload.num_experts) {
    for (const int request_idx : order) submit(request_idx);
  }

  AffinityRunResult run() {
    for (;;) {
      const std::vector<ScheduledRows> plan = scheduler_.plan();
      if (plan.empty()) break;
      count_rows(plan);
      for (int layer = 0; layer < workload_.num_layers; ++layer) run_layer(plan, layer);
      scheduler_.commit(plan);
      for (const ScheduledRows& rows : plan) take_token(*rows.sequence);
    }
    result_.num_reordered = scheduler_.num_reordered();
    for (const auto& active : requests_) {
      result_.most_overtaken = std::max(result_.most_overtaken, active->sequences[0].num_overtaken);
    }
    return result_;
  }

 private:
  enum Want : uint8_t { kNot, kByPrompt, kByDecode };

  void submit(int request_idx) {
    const RoutedRequest& routed = workload_.requests[request_idx];
    ActiveRequest& active = *requests_.emplace_back(std::make_unique<ActiveRequest>());
    active.request.prompt_ids = {request_idx};
    // The last token drawn is never computed.
    active.sequences.push_back(Sequence{.request = &active,
                                        .prompt_rows = routed.num_prompt,
                                        .max_length = routed.num_tokens() + 1,
                                        .max_positions = routed.num_tokens(),
                                        .generates = true,
                                        .stop_matcher = StopMatcher(no_stops_, false)});
    scheduler_.add(active);
  }

  const RoutedRequest& routed(const ScheduledRows& rows) const {
    return workload_.requests[rows.sequence->request->request.prompt_ids[0]];
  }

  void count_rows(const std::vector<ScheduledRows>& plan) {
    ++result_.num_steps;
    int64_t num_decode = 0;
    for (const ScheduledRows& rows : plan) {
      num_decode += rows.first_position >= routed(rows).num_prompt ? rows.num_rows : 0;
    }
    result_.num_decode_rows += num_decode;
    result_.num_decode_steps += num_decode > 0 ? 1 : 0;
  }

  void run_layer(const std::vector<ScheduledRows>& plan, int layer) {
    std::fill(wants_.begin(), wants_.end(), kNot);
    for (const ScheduledRows& rows : plan) {
      const RoutedRequest& request = routed(rows);
      for (int64_t position = rows.first_position; position < rows.end(); ++position) {
        const Want want = position < request.num_prompt ? kByPrompt : kByDecode;
        for (const int32_t expert : request.experts[position][layer]) {
          wants_[expert] = std::max(wants_[expert], want);
        }
      }
    }
    pool_.begin_layer();
    std::vector<int32_t> absent;
    for (int32_t expert = 0; expert < workload_.num_experts; ++expert) {
      if (wants_[expert] == kNot) continue;
      if (wants_[expert] == kByDecode) ++result_.num_decode_uses;
      const bool is_there = pool_.has({layer, expert});
      if (!is_there) absent.push_back(expert);
      if (is_there && !passes_by(expert)) pool_.use({layer, expert});
    }
    for (const int32_t expert : absent) {
      ++result_.num_fetches;
      if (wants_[expert] == kByDecode) ++result_.num_decode_misses;
      if (!passes_by(expert)) pool_.fetch({layer, expert});
    }
  }

  bool passes_by(int32_t expert) const {
    return options_.streams_prompts && wants_[expert] == kByPrompt;
  }

  void take_token(Sequence& sequence) {
    if (sequence.num_pending() > 0) return;
    sequence.completion.output_ids.push_back(0);
    if (sequence.num_known() == sequence.max_length) scheduler_.end(sequence);
  }

  const RoutedWorkload& workload_;
  const AffinityRunOptions& options_;
  IndexOracle oracle_;
  Scheduler scheduler_;
  Pool pool_;
  StopStrings no_stops_;
  std::vector<std::unique_ptr<ActiveRequest>> requests_;
  std::vector<Want> wants_;  // of the layer that runs, by expert
  AffinityRunResult result_;
};

}  // namespace

AffinityRunResult run_workload(const RoutedWorkload& workload,
                               const std::vector<int>& order,
                               const AffinityRunOptions& options) {
  AUGUR_REQUIRE(options.known.empty() || options.known.size() == workload.requests.size(),
                "what is known of " + std::to_string(options.known.size()) + " requests of " +
                    std::to_string(workload.requests.size()));
  return Run(workload, order, options).run();
}

}  // namespace augur
