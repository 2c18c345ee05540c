// Running recorded routing past a predictor, without a model.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/routing_trace.h"
#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"

namespace augur {

/// How many of the experts that tokens chose were guessed, where k is the number they chose.
struct RecallCount {
  int64_t num_chosen = 0;
  int64_t num_among_k = 0;   // chosen ones among the first k guesses
  int64_t num_among_2k = 0;  // and among the first 2k

  double at_k() const { return share(num_among_k); }
  double at_2k() const { return share(num_among_2k); }

 private:
  double share(int64_t count) const {
    return num_chosen > 0 ? static_cast<double>(count) / static_cast<double>(num_chosen) : 0;
  }
};

struct PredictorReplayOptions {
  int max_distance = 4;
  /// Guesses about tokens before this one are not counted: the predictor learns from them.
  int64_t first_counted_token = 0;
  /// Whether tokens of prompts are counted too.
  bool counts_prompts = false;
};

/// The layers that have experts in the trace.
MoeLayers moe_layers_of(const RoutingTrace& trace);

/// Every token is a step of one row, and a prompt after generated tokens begins a new sequence.
/// Before a token's layer, and up to max_distance - 1 layers earlier, the predictor is asked about
/// it. Returns the recalls by distance: [0] of guesses made when the layer before was routed (or,
/// for the first layer, nothing), and so on. The trace holds no gate inputs, tokens' names nor
/// weights: predictors that need them cannot be replayed. Layers that a token lacks are passed
/// over.
std::vector<RecallCount> replay_predictor(const RoutingTrace& trace,
                                          Predictor& predictor,
                                          const PredictorReplayOptions& options);

}  // namespace augur
