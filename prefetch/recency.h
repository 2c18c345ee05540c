// Predicts that a sequence uses again the experts it used last, layer by layer.
//
// It needs nothing of the step under way, so it can guess before the first layer has run.
// Threading: one thread. Routing is read in host memory.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "prefetch/moe_layers.h"
#include "prefetch/predictor.h"
#include "prefetch/sequence_states.h"

namespace augur {

class Recency final : public Predictor {
 public:
  struct Options {
    int depth = 64;                // experts remembered of each layer, at most all
    int64_t max_idle_steps = 512;  // after which a sequence is forgotten
    size_t max_sequences = 256;    // see SequenceStates
  };

  /// Each sequence takes 4 bytes for each MoE layer and remembered expert: 12 KiB for 48 layers.
  /// Requires a depth of at least 1.
  Recency(MoeLayers layers, const Options& options);

  std::string_view name() const override { return "recency"; }
  void on_step(const StepRows& rows) override;
  /// Looks at the last 16 rows of each sequence of the step.
  void on_routing(const RoutingView& routing) override;
  /// Ranks the experts that the row's sequence used in the layer before this step, most recent
  /// token first, a token's in the order of its choice; behind them, where there are ranks left,
  /// those that any sequence used, in the same way.
  void predict(int target_layer, const Guesses& guesses) override;

  size_t num_sequences() const { return sequences_.size(); }

 private:
  // Different experts of each layer, the most recently used first, -1 behind the last.
  struct History {
    std::vector<int32_t> experts;  // [num_layers, depth]

    void clear() { experts.assign(experts.size(), -1); }
  };

  std::span<int32_t> of_layer(History& history, int index) const;
  void use(History& history, int index, std::span<const int32_t> chosen) const;

  const MoeLayers layers_;
  const int depth_;
  SequenceStates<History> sequences_;
  History all_;
  // The step under way.
  StepRows rows_;
  std::vector<History*> of_sequence_;  // by the sequence's index in the step
};

}  // namespace augur
