#include "tools/affinity/run.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "cache/eviction_policy.h"
#include "cache/expert_pool.h"
#include "engine/schedule/scheduler.h"
#include "kernels/require.h"
#include "tools/replay/instant_fetcher.h"

namespace augur {
namespace {

// Enough that memory for keys and values is never what limits a batch.
constexpr int64_t kNumBlocks = 1 << 20;
constexpr int kBlockSize = 16;
constexpr int64_t kMaxRows = 2048;

ExpertPoolShape pool_shape(const RoutedWorkload& workload, double share) {
  const auto num_keys = static_cast<double>(workload.num_layers) * workload.num_experts;
  size_t top_k = 1;
  for (const RoutedRequest& request : workload.requests) {
    for (const auto& layers : request.experts) {
      for (const auto& experts : layers) top_k = std::max(top_k, experts.size());
    }
  }
  return {.num_layers = workload.num_layers,
          .num_moe_layers = workload.num_layers,
          .num_experts = workload.num_experts,
          .num_slots =
              std::max(static_cast<int>(top_k), static_cast<int>(std::llround(share * num_keys))),
          .top_k = static_cast<int>(top_k)};
}

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
                   {.policy = options.known.empty() ? SchedulePolicy::kFcfs
                                                    : SchedulePolicy::kExpertAffinity,
                    .affinity = {.oracle = options.known.empty() ? nullptr : &oracle_,
                                 .window = options.window,
                                 .max_overtakes = options.max_overtakes}}),
        counters_(workload.num_layers, workload.num_experts),
        pool_(pool_shape(workload, options.pool_share),
              make_lru_policy(pool_shape(workload, options.pool_share).num_slots),
              fetcher_,
              counters_),
        num_rows_(workload.num_experts),
        num_decode_rows_(workload.num_experts) {
    for (const int request_idx : order) submit(request_idx);
  }

  AffinityRunResult run() {
    for (;;) {
      const std::vector<ScheduledRows> plan = scheduler_.plan();
      if (plan.empty()) break;
      count_rows(plan);
      for (int layer = 0; layer < workload_.num_layers; ++layer) run_layer(plan, layer);
      pool_.end_step(/*has_decode_rows=*/true);
      scheduler_.commit(plan);
      for (const ScheduledRows& rows : plan) take_token(*rows.sequence);
    }
    result_.num_reordered = scheduler_.counters().reordered_admissions;
    for (const auto& active : requests_) {
      result_.most_overtaken = std::max(result_.most_overtaken, active->sequences[0].num_overtaken);
    }
    return result_;
  }

 private:
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
    std::fill(num_rows_.begin(), num_rows_.end(), 0);
    std::fill(num_decode_rows_.begin(), num_decode_rows_.end(), 0);
    for (const ScheduledRows& rows : plan) {
      const RoutedRequest& request = routed(rows);
      for (int64_t position = rows.first_position; position < rows.end(); ++position) {
        for (const int32_t expert : request.experts[position][layer]) {
          ++num_rows_[expert];
          num_decode_rows_[expert] += position >= request.num_prompt;
        }
      }
    }
    std::vector<int32_t> wanted;
    for (int32_t expert = 0; expert < workload_.num_experts; ++expert) {
      if (num_rows_[expert] == 0) continue;
      wanted.push_back(expert);
      const bool is_there = pool_.is_resident({layer, expert});
      result_.num_fetches += !is_there;
      if (num_decode_rows_[expert] == 0) continue;
      ++result_.num_decode_uses;
      result_.num_decode_misses += !is_there;
    }
    pool_.begin(layer, wanted, num_rows_, num_decode_rows_);
    while (!pool_.next().empty()) continue;
    pool_.end();
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
  InstantFetcher fetcher_;
  ExpertCounters counters_;
  ExpertPool pool_;
  StopStrings no_stops_;
  std::vector<std::unique_ptr<ActiveRequest>> requests_;
  std::vector<int32_t> num_rows_;  // of the layer that runs, by expert
  std::vector<int32_t> num_decode_rows_;
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
