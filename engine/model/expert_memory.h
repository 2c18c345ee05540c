// The experts of a model in fewer slots than there are experts.
//
// Wires the pool to the memory of its slots, to what fetches into them, and to who predicts. The
// decoder tells it of each step and of each layer's routing, and hands it to the moe operation,
// which it feeds. Nothing here changes a result.
// Threading: one thread; fetching goes on behind it.
#pragma once

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

  /// Slots in the memory of `ops`, which the host reads and which outlives this. Throws
  /// OutOfMemory.
  ExpertMemory(const ModelConfig& config, const ExpertLayout& layout, Ops& ops, const Parts& parts);
  ~ExpertMemory() override;

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

 private:
  const ExpertLayout layout_;
  const int num_experts_;
  Buffer slots_;
  ExpertCounters counters_;
  std::unique_ptr<ExpertFetcher> fetcher_;
  std::unique_ptr<ExpertPool> pool_;

  int64_t num_decode_tokens_ = 0;  // of the step under way
  int layer_ = -1;
  std::vector<int32_t> num_rows_;  // of the layer, by expert
  std::vector<int32_t> num_decode_rows_;
};

}  // namespace augur
