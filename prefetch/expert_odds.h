// How likely a step uses each expert of a layer, from what several predictors say of several rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/expert_key.h"
#include "prefetch/calibration.h"
#include "prefetch/predictor.h"

namespace augur {

struct ExpertOdds {
  ExpertKey key;
  double probability = 0;  // that a row of this step uses it
  int distance = 0;        // MoE layers ahead of the one just routed
  int64_t num_bytes = 0;
};

/// Combines guesses about one layer. Of a row, the predictor surest of an expert is believed:
/// predictors see the same things, so that their agreeing says little more. Rows are taken to be
/// independent: an expert goes unused with probability prod(1 - p of the row).
class OddsOfRows {
 public:
  explicit OddsOfRows(int num_experts) : unused_(num_experts, 1), of_row_(num_experts, 0) {}

  /// Begins with another layer.
  void clear();
  /// What all predictors say of all rows, by predictor; every element has the same number of rows
  /// and the calibration's predictors in their order.
  void add(std::span<const Guesses> guesses, int distance, const Calibration& calibration);
  /// That some row uses the expert.
  double probability(int expert) const { return 1 - unused_[expert]; }
  int num_experts() const { return static_cast<int>(unused_.size()); }

 private:
  std::vector<double> unused_;  // by expert: that no row uses it
  std::vector<double> of_row_;  // by expert: of the row at hand; 0 between rows
  std::vector<int32_t> touched_;
  std::vector<double> precision_;  // [predictors, width], of the distance at hand
};

}  // namespace augur
