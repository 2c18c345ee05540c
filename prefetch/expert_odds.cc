#include "prefetch/expert_odds.h"

#include <algorithm>
#include <string>

#include "kernels/require.h"

namespace augur {

void OddsOfRows::clear() {
  std::fill(unused_.begin(), unused_.end(), 1.0);
}

void OddsOfRows::add(std::span<const Guesses> guesses,
                     int distance,
                     const Calibration& calibration) {
  if (guesses.empty()) return;
  const int width = guesses[0].width;
  precision_.resize(guesses.size() * width);
  for (size_t p = 0; p < guesses.size(); ++p) {
    AUGUR_REQUIRE(guesses[p].width == width && guesses[p].num_tokens == guesses[0].num_tokens,
                  "guesses of different shapes");
    for (int rank = 0; rank < width; ++rank) {
      precision_[p * width + rank] = calibration.precision(static_cast<int>(p), distance, rank);
    }
  }
  for (int64_t row = 0; row < guesses[0].num_tokens; ++row) {
    touched_.clear();
    for (size_t p = 0; p < guesses.size(); ++p) {
      const int32_t* const experts = guesses[p].row(row);
      for (int rank = 0; rank < width && experts[rank] >= 0; ++rank) {
        double& best = of_row_[experts[rank]];
        if (best == 0) touched_.push_back(experts[rank]);
        best = std::max(best, precision_[p * width + rank]);
      }
    }
    for (const int32_t expert : touched_) {
      unused_[expert] *= 1 - of_row_[expert];
      of_row_[expert] = 0;
    }
  }
}

}  // namespace augur
