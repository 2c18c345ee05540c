#include "prefetch/route_cache_predictor.h"

#include <algorithm>

namespace augur {

void RouteCachePredictor::on_routing(const RoutingView& routing) {
  if (cache_.mode() == RouteCacheMode::kPrefetch) cache_.observe(routing);
}

void RouteCachePredictor::predict(int target_layer, const Guesses& guesses) {
  const int num_distances = cache_.config().num_later_layers;
  const int64_t num_rows = std::min<int64_t>(guesses.num_tokens, cache_.config().max_rows);
  for (int64_t row = 0; row < num_rows; ++row) {
    int32_t* const first = guesses.row(row);
    int32_t* next = first;
    int32_t* const end = first + guesses.width;
    for (int distance = 1; distance <= num_distances; ++distance) {
      for (const int32_t expert : cache_.hint(row, target_layer, distance)) {
        if (next == end) break;
        if (std::find(first, next, expert) == next) *next++ = expert;
      }
    }
  }
}

}  // namespace augur
