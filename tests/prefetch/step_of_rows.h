// Steps and routing for tests of predictors, without a model.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/routing_observer.h"
#include "cache/step_rows.h"

namespace augur {

/// The rows of a step, and the arrays that StepRows looks at.
class StepOfRows {
 public:
  /// Adds rows of a sequence at positions from `position` on; decoding ones first.
  StepOfRows& add(int64_t sequence_id,
                  int32_t position,
                  std::vector<int32_t> token_ids,
                  bool is_decode = false) {
    const auto sequence_idx = static_cast<int32_t>(sequence_ids_.size());
    sequence_ids_.push_back(sequence_id);
    for (const int32_t id : token_ids) {
      token_ids_.push_back(id);
      positions_.push_back(position++);
      sequence_of_row_.push_back(sequence_idx);
      if (is_decode) ++num_decode_tokens_;
    }
    return *this;
  }
  StepOfRows& decode(int64_t sequence_id, int32_t position) {
    return add(sequence_id, position, {1}, /*is_decode=*/true);
  }

  StepRows rows() const {
    StepRows rows;
    rows.num_tokens = static_cast<int64_t>(token_ids_.size());
    rows.num_decode_tokens = num_decode_tokens_;
    rows.token_ids = token_ids_;
    rows.positions = positions_;
    rows.sequence_of_row = sequence_of_row_;
    rows.sequence_ids = sequence_ids_;
    return rows;
  }

 private:
  int64_t num_decode_tokens_ = 0;
  std::vector<int32_t> token_ids_, positions_, sequence_of_row_;
  std::vector<int64_t> sequence_ids_;
};

/// `experts` are [num_tokens, top_k] and outlive the view.
inline RoutingView routing_of(int layer, const std::vector<int32_t>& experts, int top_k) {
  RoutingView view;
  view.layer_idx = layer;
  view.num_tokens = static_cast<int64_t>(experts.size()) / top_k;
  view.top_k = top_k;
  view.experts = experts.data();
  return view;
}

/// What a predictor guesses, [num_tokens, width].
template <typename Predictor>
std::vector<int32_t> guess(Predictor& predictor, int layer, int64_t num_tokens, int width) {
  std::vector<int32_t> experts(num_tokens * width, -1);
  predictor.predict(layer, {experts, num_tokens, width});
  return experts;
}

}  // namespace augur
