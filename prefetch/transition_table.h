// Predicts a later layer from the experts chosen in this one: which experts followed which.
//
// For each pair of MoE layers up to a distance, the table holds how often target expert f was
// chosen by rows that had chosen source expert e, older rows counting less. It learns from every
// step. There is a table per distance: chaining the nearest one would compound its errors.
// Threading: one thread. Routing is read in host memory.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"

namespace augur {

class TransitionTable final : public Predictor {
 public:
  /// Allocates num_bytes() now. Requires max_distance >= 1.
  TransitionTable(MoeLayers layers, int max_distance);

  /// 4 bytes for each (distance, MoE layer, source expert, target expert): 12.6 MB for 48 layers
  /// of 128 experts and 4 distances; and totals, a share of 1 / num_experts of that.
  static int64_t num_bytes(const MoeLayers& layers, int max_distance);

  std::string_view name() const override { return "transition"; }
  void on_step(const StepRows& rows) override;
  /// Learns from up to kMaxGuessedRows rows, evenly spaced where there are more.
  void on_routing(const RoutingView& routing) override;
  /// Ranks by the estimated chances of a target expert given each source expert, summed over a
  /// row's source experts. No guesses before the first layer of a step, nor beyond the distance.
  void predict(int target_layer, const Guesses& guesses) override;

 private:
  // The choices of the sampled rows of one layer of the step under way.
  struct Observed {
    int index = -1;  // of the MoE layer; -1: none yet
    int64_t num_rows = 0;
    int top_k = 0;
    std::vector<int32_t> experts;  // [num_rows, top_k]

    const int32_t* row(int64_t row_idx) const { return experts.data() + row_idx * top_k; }
  };

  int64_t entry(int distance, int source_idx, int expert) const {
    const int64_t layer = int64_t{distance - 1} * layers_.num_layers() + source_idx;
    return layer * layers_.num_experts() + expert;
  }
  Observed& observed(int index) { return observed_[index % observed_.size()]; }
  void remember(int index, const RoutingView& routing);
  void learn(int distance, const Observed& source, const Observed& target);

  const MoeLayers layers_;
  const int max_distance_;
  std::vector<float> counts_;       // [max_distance, layers, source expert, target expert]
  std::vector<float> totals_;       // [max_distance, layers, source expert]: rows behind the counts
  std::vector<float> usage_;        // [layers, expert]: how often a row chose it
  std::vector<Observed> observed_;  // the last max_distance + 1 layers, by index modulo that
  int last_idx_ = -1;               // of the step under way
  std::vector<float> scores_;
  std::vector<int32_t> order_;
};

}  // namespace augur
