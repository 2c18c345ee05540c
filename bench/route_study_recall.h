// How many of the experts that later layers choose do predictors foretell?
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"
#include "tools/replay/predictor_replay.h"

namespace augur {

/// Asks every predictor, when a MoE layer has been routed, about those `distances` behind it, and
/// counts what came of it. All see the same rows at the same time.
class RecallStudy final : public RoutingObserver {
 public:
  /// Of the rows, the first `num_unscored` only teach the predictors.
  RecallStudy(MoeLayers layers,
              std::vector<std::unique_ptr<Predictor>> predictors,
              std::vector<int> distances,
              int top_k,
              int64_t num_unscored);

  void on_step(const StepRows& rows) override;
  void on_routing(const RoutingView& routing) override;
  void on_step_end() override;

  /// Requires indices of the lists given.
  const RecallCount& recall(size_t predictor, size_t distance_idx) const {
    return recalls_[predictor * distances_.size() + distance_idx];
  }

 private:
  std::vector<int32_t>& guesses_of(size_t predictor, size_t distance_idx, int moe_idx) {
    return guesses_[(predictor * distances_.size() + distance_idx) * layers_.num_layers() +
                    moe_idx];
  }
  void score(int moe_idx, const RoutingView& routing);
  void ask(int moe_idx);

  const MoeLayers layers_;
  const std::vector<std::unique_ptr<Predictor>> predictors_;
  const std::vector<int> distances_;
  const int width_;
  const int64_t num_unscored_;
  int64_t num_rows_before_ = 0;
  int64_t num_rows_ = 0;                       // of the step
  std::vector<std::vector<int32_t>> guesses_;  // [predictors, distances, layers], of the step
  std::vector<RecallCount> recalls_;           // [predictors, distances]
};

}  // namespace augur
