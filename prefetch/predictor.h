// Guesses which experts later layers will choose.
//
// A predictor watches the routing of every layer and, asked about a later one, ranks its experts
// for each row. It never changes a result: its guesses decide which bytes move early. How far to
// trust a rank is learned apart from it (calibration.h).
// Threading: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "cache/routing_observer.h"

namespace augur {

/// Steps of more rows get no guesses: so many rows use nearly every expert of a layer (of 256 with
/// 8 chosen, 64 unrelated rows use 87 %), and the layer is worth bringing as a whole.
inline constexpr int64_t kMaxGuessedRows = 64;

/// Guesses for the rows of a step: `experts[row * width + rank]`, likeliest first; -1 after a
/// row's last guess. A row may have none.
struct Guesses {
  std::span<int32_t> experts;  // [num_tokens, width], filled with -1 before predict()
  int64_t num_tokens = 0;
  int width = 0;

  int32_t* row(int64_t row_idx) const { return experts.data() + row_idx * width; }
};

class Predictor : public RoutingObserver {
 public:
  /// As in the configuration: "gate_lookahead".
  virtual std::string_view name() const = 0;
  /// Ranks up to guesses.width different experts of layer `target_layer` (of the model, a MoE
  /// layer) for each row of the step under way, from what was observed until now: the routing of
  /// layers before `target_layer` in this step, or nothing yet of it. Called after on_step(), any
  /// number of times; allocates nothing after the first step of a size. Leaves steps of more than
  /// kMaxGuessedRows rows without guesses.
  virtual void predict(int target_layer, const Guesses& guesses) = 0;
};

}  // namespace augur
