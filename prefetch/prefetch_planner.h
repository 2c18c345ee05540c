// Decides, layer by layer, which experts are worth bringing before their layer asks for them.
//
// After each layer's routing every predictor ranks the experts of the next few MoE layers. Ranks
// become probabilities by what came of such guesses before (Calibration), rows are combined to the
// probability that any of them uses the expert, and the likeliest absent experts go to the sink
// until the budget of this layer is spent. When a layer's routing arrives, guesses about it are
// scored, and experts fetched for it in vain are named to the sink.
//
// States: within a step, from on_step to on_step_end; a step that failed ends with the next
// on_step.
// Threading: one thread. Routing is read in host memory.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "prefetch/calibration.h"
#include "prefetch/expert_odds.h"
#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"
#include "prefetch/prefetch_budget.h"
#include "prefetch/prefetch_sink.h"

namespace augur {

/// Since the planner was made.
struct PrefetchCounters {
  int64_t num_predictions = 0;  // calls of predict()
  int64_t num_prefetched = 0;   // absent experts that the sink took
  int64_t prefetched_bytes = 0;
  int64_t num_used = 0;         // of them, by the layer they were for in the same step
  int64_t num_stale = 0;        // of them, not
  int64_t num_refused = 0;      // times the sink refused
  int64_t num_over_budget = 0;  // times the budget was spent before the likely experts were
};

class PrefetchPlanner final : public RoutingObserver {
 public:
  struct Options {
    int max_distance = 4;  // in MoE layers after the one just routed
    int width = 16;        // ranks asked for: twice top_k is a good value
    // For less nothing is fetched. Experts that are absent are the less likely ones: on recorded
    // routing with a quarter of the experts in an LRU pool, fetches from 0.2 on are used at a rate
    // of 0.33, from 0.4 on of 0.47, and the former take three times the bytes.
    double min_probability = 0.4;
    int top_k = 8;  // for what is assumed before anything is known
  };

  /// `sink` and `budget` outlive it; without a budget every likely expert is prefetched. Requires a
  /// predictor, a distance and a width of at least 1, and a probability above 0.
  PrefetchPlanner(MoeLayers layers,
                  std::vector<std::unique_ptr<Predictor>> predictors,
                  int64_t expert_bytes,
                  const Options& options,
                  PrefetchSink& sink,
                  const PrefetchBudget* budget);

  /// For experts of different sizes: `bytes_of` says how large one is, more than 0.
  void set_sizes(std::function<int64_t(ExpertKey)> bytes_of) { bytes_of_ = std::move(bytes_of); }

  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView& routing) override;
  void on_step_end() override;
  bool wants_logits() const override;

  const Calibration& calibration() const { return calibration_; }
  const PrefetchCounters& counters() const { return counters_; }
  int num_predictors() const { return static_cast<int>(predictors_.size()); }
  std::string_view predictor_name(int predictor) const { return predictors_[predictor]->name(); }
  /// What was handed to the sink or would have been, after the last layer: the likely experts by
  /// falling benefit per byte, wherever they are.
  std::span<const ExpertOdds> likely() const { return likely_; }

 private:
  // Every predictor's guesses about one layer, made from one distance.
  struct Opinion {
    bool is_made = false;
    std::vector<int32_t> experts;  // [predictors, kMaxGuessedRows, width]
  };
  // What waits for the routing of one MoE layer.
  struct Awaited {
    std::vector<Opinion> opinions;    // [max_distance]
    std::vector<int32_t> prefetched;  // experts brought for it in this step
  };

  Guesses guesses_of(Opinion& opinion, int predictor);
  void plan(int routed_idx);
  void predict(int target_idx, int distance);
  void hand_over();
  void score(int index, const RoutingView& routing);
  void settle(int index, const RoutingView& routing);
  void drop_all();

  // Constant after construction.
  const MoeLayers layers_;
  const Options options_;
  const int64_t expert_bytes_;
  PrefetchSink& sink_;
  const PrefetchBudget* const budget_;
  std::function<int64_t(ExpertKey)> bytes_of_;
  // Of the step under way.
  int64_t num_rows_ = 0;
  int64_t layer_budget_bytes_ = 0;
  std::vector<Awaited> awaited_;  // by MoE layer
  // Across steps.
  std::vector<std::unique_ptr<Predictor>> predictors_;
  Calibration calibration_;
  PrefetchCounters counters_;
  // Scratch.
  OddsOfRows odds_;
  std::vector<Guesses> guesses_;  // by predictor
  std::vector<ExpertOdds> likely_;
  std::vector<uint8_t> is_chosen_;  // by expert
};

}  // namespace augur
