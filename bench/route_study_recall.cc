#include "bench/route_study_recall.h"

#include <algorithm>
#include <utility>

namespace augur {

RecallStudy::RecallStudy(MoeLayers layers,
                         std::vector<std::unique_ptr<Predictor>> predictors,
                         std::vector<int> distances,
                         int top_k,
                         int64_t num_unscored)
    : layers_(std::move(layers)),
      predictors_(std::move(predictors)),
      distances_(std::move(distances)),
      width_(2 * top_k),
      num_unscored_(num_unscored),
      guesses_(predictors_.size() * distances_.size() * layers_.num_layers()),
      recalls_(predictors_.size() * distances_.size()) {}

void RecallStudy::on_step(const StepRows& rows) {
  num_rows_before_ += num_rows_;
  num_rows_ = rows.num_tokens;
  for (std::vector<int32_t>& guesses : guesses_) guesses.clear();
  for (const auto& predictor : predictors_) predictor->on_step(rows);
}

void RecallStudy::on_routing(const RoutingView& routing) {
  const int moe_idx = layers_.index_of(routing.layer_idx);
  if (num_rows_before_ >= num_unscored_) score(moe_idx, routing);
  for (const auto& predictor : predictors_) predictor->on_routing(routing);
  ask(moe_idx);
}

void RecallStudy::on_step_end() {
  for (const auto& predictor : predictors_) predictor->on_step_end();
}

void RecallStudy::score(int moe_idx, const RoutingView& routing) {
  for (size_t p = 0; p < predictors_.size(); ++p) {
    for (size_t d = 0; d < distances_.size(); ++d) {
      const std::vector<int32_t>& guesses = guesses_of(p, d, moe_idx);
      if (guesses.empty()) continue;  // too early in the step
      RecallCount& recall = recalls_[p * distances_.size() + d];
      for (int64_t row = 0; row < routing.num_tokens; ++row) {
        const auto first = guesses.begin() + row * width_;
        for (const int32_t expert : choices_of(routing, row)) {
          const auto rank = std::find(first, first + width_, expert) - first;
          ++recall.num_chosen;
          recall.num_among_k += rank < width_ / 2;
          recall.num_among_2k += rank < width_;
        }
      }
    }
  }
}

void RecallStudy::ask(int moe_idx) {
  for (size_t d = 0; d < distances_.size(); ++d) {
    const int target = moe_idx + distances_[d];
    if (target >= layers_.num_layers()) continue;
    for (size_t p = 0; p < predictors_.size(); ++p) {
      std::vector<int32_t>& guesses = guesses_of(p, d, target);
      guesses.assign(num_rows_ * width_, -1);
      predictors_[p]->predict(layers_.layer(target), {guesses, num_rows_, width_});
    }
  }
}

}  // namespace augur
