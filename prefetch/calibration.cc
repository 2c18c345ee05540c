#include "prefetch/calibration.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/require.h"

namespace augur {

Calibration::Calibration(const Options& options)
    : options_(options), decay_(std::exp2(-1 / options.half_life_rows)) {
  AUGUR_REQUIRE(options.num_predictors > 0 && options.max_distance > 0 && options.width > 0,
                std::to_string(options.num_predictors) + " predictors, distance " +
                    std::to_string(options.max_distance) + ", width " +
                    std::to_string(options.width));
  AUGUR_REQUIRE(options.half_life_rows > 0, std::to_string(options.half_life_rows));
  AUGUR_REQUIRE(
      options.prior_precision >= 0 && options.prior_precision <= 1 && options.prior_rows > 0,
      std::to_string(options.prior_precision));
  Series empty;
  empty.ranks.resize(options.width);
  series_.assign(static_cast<size_t>(options.num_predictors) * options.max_distance, empty);
}

size_t Calibration::series_idx(int predictor, int distance) const {
  AUGUR_REQUIRE(
      predictor >= 0 && predictor < options_.num_predictors && distance >= 1 &&
          distance <= options_.max_distance,
      "predictor " + std::to_string(predictor) + " at distance " + std::to_string(distance));
  return static_cast<size_t>(predictor) * options_.max_distance + distance - 1;
}

void Calibration::record(int predictor,
                         int distance,
                         std::span<const int32_t> guesses,
                         std::span<const uint8_t> is_chosen,
                         int num_chosen) {
  Series& series = series_[series_idx(predictor, distance)];
  ++series.num_rows;
  series.num_chosen = series.num_chosen * decay_ + num_chosen;
  const size_t num_ranks = std::min(guesses.size(), series.ranks.size());
  for (size_t rank = 0; rank < series.ranks.size(); ++rank) {
    Rank& sums = series.ranks[rank];
    sums.num_hits *= decay_;
    sums.num_guesses *= decay_;
    if (rank >= num_ranks || guesses[rank] < 0) continue;
    sums.num_guesses += 1;
    if (is_chosen[guesses[rank]] != 0) sums.num_hits += 1;
  }
}

double Calibration::precision(int predictor, int distance, int rank) const {
  AUGUR_REQUIRE(rank >= 0 && rank < options_.width, "rank " + std::to_string(rank));
  const Rank& sums = series_[series_idx(predictor, distance)].ranks[rank];
  return (sums.num_hits + options_.prior_precision * options_.prior_rows) /
         (sums.num_guesses + options_.prior_rows);
}

double Calibration::recall(int predictor, int distance, int num_ranks) const {
  const Series& of = series_[series_idx(predictor, distance)];
  if (of.num_chosen == 0) return 0;
  double num_hits = 0;
  for (int rank = 0; rank < std::min(num_ranks, options_.width); ++rank) {
    num_hits += of.ranks[rank].num_hits;
  }
  return num_hits / of.num_chosen;
}

int64_t Calibration::num_rows(int predictor, int distance) const {
  return series_[series_idx(predictor, distance)].num_rows;
}

}  // namespace augur
