// The experts of a model in fewer slots than there are experts.
//
// Wires the pool to the memory of its slots, to what fetches into them, and to who predicts. The
// decoder tells it of each step and of each layer's routing, and hands it to the moe operation,
// which it feeds. Nothing here changes a result.
// Threading: one thread; fetching goes on behind it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "cache/eviction_policy.h"
#include "cache/expert_counters.h"
#include "cache/expert_fetcher.h"
#include "cache/expert_pool.h"
#include "cache/routing_observer.h"
#include "configs/model_config.h"
#include "kernels/ops.h"
#include "prefetch/loader.h"
#include "prefetch/prefetch_budget.h"
#include "prefetch/prefetch_planner.h"
#include "prefetch/prefetch_sink.h"
#include "prefetch/prompt_signature.h"

namespace augur {

class ExpertMemory final : public RoutingObserver, public ExpertFeed {
 public:
  /// What tests exchange.
  struct Parts {
    int num_slots = 0;
    std::function<std::unique_ptr<EvictionPolicy>(int num_slots, double uses_per_token)>
        make_policy;
    /// The slots outlive what it makes.
    std::function<std::unique_ptr<ExpertFetcher>(const SlotMemory& slots)> make_fetcher;
  };

  /// Who reads ahead, and how much.
  struct Prefetching {
    std::unique_ptr<PrefetchBudget> budget;  // or null: whatever there is room for
    std::unique_ptr<PrefetchPlanner> planner;
    PromptSignature* prompt_signature = nullptr;  // the planner's, where it has one
  };

  /// Slots in the memory of `ops`, which the host reads and which outlives this. Throws
  /// OutOfMemory.
  ExpertMemory(const ModelConfig& config, const ExpertLayout& layout, Ops& ops, const Parts& parts);
  ~ExpertMemory() override;

  /// Reads ahead from the next step on. The planner was made for sink().
  void start_prefetching(Prefetching prefetching);
  PrefetchSink& sink() { return sink_; }

  /// Something else serves some choices before the pool is asked for the rest: from then on a
  /// layer's misses are asked for when it runs, not when its routing is told.
  void expect_substitutes() { has_substitutes_ = true; }

  /// Where the experts of a layer are.
  ExpertTable table(int layer) const;

  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView& routing) override;
  void on_step_end() override;

  // For the layer whose routing was told last.
  void begin(std::span<const int32_t> experts) override;
  std::span<const int32_t> next() override;
  /// The layer's experts have run, or will not.
  void end_layer();

  const ExpertCounters& counters() const { return counters_; }
  const ExpertPool& pool() const { return *pool_; }
  int64_t slot_bytes() const { return layout_.block_bytes; }
  /// Null while nothing is read ahead.
  const PrefetchPlanner* planner() const { return prefetching_.planner.get(); }
  const PrefetchBudget* budget() const { return prefetching_.budget.get(); }
  PromptSignature* prompt_signature() const { return prefetching_.prompt_signature; }

 private:
  class PoolSink final : public PrefetchSink {
   public:
    explicit PoolSink(ExpertMemory& memory) : memory_(memory) {}
    ExpertPlace place(ExpertKey key) const override;
    bool prefetch(ExpertKey key, FetchPriority priority, double probability) override;
    void on_stale(ExpertKey key) override;

   private:
    ExpertMemory& memory_;
  };

  const ExpertLayout layout_;
  const int num_experts_;
  Buffer slots_;
  ExpertCounters counters_;
  std::unique_ptr<ExpertFetcher> fetcher_;
  std::unique_ptr<ExpertPool> pool_;
  PoolSink sink_{*this};
  Prefetching prefetching_;
  bool has_substitutes_ = false;

  // The step under way.
  int64_t num_tokens_ = 0;
  int64_t num_decode_tokens_ = 0;
  std::chrono::steady_clock::time_point step_start_;
  // Its layer under way.
  int layer_ = -1;
  bool is_begun_ = false;          // the pool knows what the layer wants
  std::vector<int32_t> num_rows_;  // by expert
  std::vector<int32_t> num_decode_rows_;
  std::vector<int32_t> wanted_;
};

}  // namespace augur
