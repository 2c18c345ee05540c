// How often guesses come true: by predictor, by distance and by rank.
//
// What a predictor says is a ranking; this turns a rank into a probability. Guesses made long ago
// count less, so that it follows the text.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace augur {

class Calibration {
 public:
  struct Options {
    int num_predictors = 0;
    int max_distance = 0;  // distances are 1 to this, in MoE layers
    int width = 0;         // ranks
    double half_life_rows = 1024;
    // What is assumed before anything is known, as if seen in so many rows. The chance of a guess
    // at random, top_k / num_experts, makes a predictor earn its trust.
    double prior_precision = 0.05;
    double prior_rows = 16;
  };

  /// Requires counts and half-life above 0, a prior precision in [0, 1] and prior rows above 0.
  explicit Calibration(const Options& options);

  /// What came of the guesses for one row: `guesses` as in Guesses::row, `is_chosen` by expert, not
  /// 0 for the `num_chosen` experts that the row chose. A row without guesses counts as missed.
  void record(int predictor,
              int distance,
              std::span<const int32_t> guesses,
              std::span<const uint8_t> is_chosen,
              int num_chosen);

  /// The probability that a row uses the expert which `predictor` ranked `rank` (from 0) for it.
  double precision(int predictor, int distance, int rank) const;
  /// The share of the chosen experts that were among the first `num_ranks` guesses; 0 when nothing
  /// was recorded. For reports: recall at top_k and twice that.
  double recall(int predictor, int distance, int num_ranks) const;
  /// Rows recorded, not decayed.
  int64_t num_rows(int predictor, int distance) const;

  int width() const { return options_.width; }

 private:
  // Sums in which a row's weight decays.
  struct Rank {
    double num_hits = 0;
    double num_guesses = 0;
  };
  struct Series {  // of one predictor at one distance
    std::vector<Rank> ranks;
    double num_chosen = 0;
    int64_t num_rows = 0;
  };

  size_t series_idx(int predictor, int distance) const;

  const Options options_;
  const double decay_;
  std::vector<Series> series_;  // [num_predictors, max_distance]
};

}  // namespace augur
