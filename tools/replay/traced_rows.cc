#include "tools/replay/traced_rows.h"

#include <algorithm>

namespace augur {

StepRows TracedRows::begin_step(std::span<const TracedToken> tokens) {
  tokens_ = tokens;
  token_ids_.clear();
  positions_.clear();
  sequence_of_row_.clear();
  sequence_ids_.clear();
  StepRows rows;
  for (const TracedToken& token : tokens) {
    if (sequence_ids_.empty() || sequence_ids_.back() != token.turn) {
      sequence_ids_.push_back(token.turn);
    }
    token_ids_.push_back(num_rows_so_far_++);
    positions_.push_back(static_cast<int32_t>(token.position));
    sequence_of_row_.push_back(static_cast<int32_t>(sequence_ids_.size()) - 1);
    rows.num_decode_tokens += token.is_generated();
  }
  rows.num_tokens = static_cast<int64_t>(tokens.size());
  rows.token_ids = token_ids_;
  rows.positions = positions_;
  rows.sequence_of_row = sequence_of_row_;
  rows.sequence_ids = sequence_ids_;
  return rows;
}

RoutingView TracedRows::routing_of(int32_t layer) {
  experts_.assign(tokens_.size() * top_k_, -1);
  for (size_t row = 0; row < tokens_.size(); ++row) {
    const auto found = tokens_[row].experts_of.find(layer);
    if (found == tokens_[row].experts_of.end()) continue;
    std::copy(found->second.begin(), found->second.end(), experts_.begin() + row * top_k_);
  }
  RoutingView routing;
  routing.layer_idx = layer;
  routing.num_tokens = static_cast<int64_t>(tokens_.size());
  routing.top_k = top_k_;
  routing.experts = experts_.data();
  return routing;
}

}  // namespace augur
