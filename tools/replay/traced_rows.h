// Tokens of a trace as the rows of steps, for those who watch routing.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/routing_observer.h"
#include "cache/routing_trace.h"
#include "cache/step_rows.h"

namespace augur {

/// A turn is a sequence. Tokens' names are not recorded: each row gets a new one, so that no text
/// is taken for another.
class TracedRows {
 public:
  /// `top_k` is the most choices of a token.
  explicit TracedRows(int top_k) : top_k_(top_k) {}

  /// Tokens of one step as they ran; they outlive it. The rows are valid until the next step.
  StepRows begin_step(std::span<const TracedToken> tokens);
  /// Of the step begun last; -1 where a token chose fewer. Valid until the next call.
  RoutingView routing_of(int32_t layer);

 private:
  const int top_k_;
  int32_t num_rows_so_far_ = 0;
  std::span<const TracedToken> tokens_;
  std::vector<int32_t> token_ids_, positions_, sequence_of_row_;
  std::vector<int64_t> sequence_ids_;
  std::vector<int32_t> experts_;  // [rows, top_k]
};

}  // namespace augur
