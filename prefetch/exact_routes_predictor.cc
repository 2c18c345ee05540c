#include "prefetch/exact_routes_predictor.h"

#include <algorithm>

namespace augur {

void ExactRoutesPredictor::predict(int target_layer, const Guesses& guesses) {
  for (int64_t row = 0; row < std::min(guesses.num_tokens, routes_.num_rows()); ++row) {
    const std::span<const int32_t> experts = routes_.routes(row, target_layer).experts;
    std::copy_n(experts.begin(), std::min<int64_t>(std::ssize(experts), guesses.width),
                guesses.row(row));
  }
}

}  // namespace augur
