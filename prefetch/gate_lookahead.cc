#include "prefetch/gate_lookahead.h"

#include <algorithm>
#include <string>

#include "kernels/require.h"

namespace augur {

GateLookahead::GateLookahead(Ops& ops, const GateRules& rules, const std::vector<LayerGate>& gates)
    : ops_(ops), rules_(rules) {
  AUGUR_REQUIRE(ops.uses_host_memory(), "routing lies in the memory of a device");
  for (const LayerGate& gate : gates) {
    AUGUR_REQUIRE(gate.layer >= 0 && gate.weight != nullptr, "layer " + std::to_string(gate.layer));
    if (gate.layer >= static_cast<int>(gates_.size())) gates_.resize(gate.layer + 1);
    AUGUR_REQUIRE(gates_[gate.layer].weight == nullptr,
                  "two gates of layer " + std::to_string(gate.layer));
    gates_[gate.layer] = gate;
  }
}

void GateLookahead::on_step(const StepRows& rows) {
  source_layer_ = -1;
}

void GateLookahead::on_routing(const RoutingView& routing) {
  source_layer_ = routing.layer_idx;
  gate_input_ = routing.gate_input;
}

void GateLookahead::predict(int target_layer, const Guesses& guesses) {
  AUGUR_REQUIRE(target_layer >= 0 && target_layer < static_cast<int>(gates_.size()) &&
                    gates_[target_layer].weight != nullptr,
                "no gate of layer " + std::to_string(target_layer));
  if (source_layer_ < 0 || target_layer <= source_layer_ || guesses.num_tokens > kMaxGuessedRows) {
    return;
  }
  AUGUR_REQUIRE(guesses.num_tokens == gate_input_.num_rows,
                std::to_string(guesses.num_tokens) + " rows of guesses, " +
                    std::to_string(gate_input_.num_rows) + " observed");
  const int num_admitted = rules_.num_experts / rules_.num_groups * rules_.top_groups;
  const int num_ranks = std::min(guesses.width, num_admitted);
  const size_t num_values = static_cast<size_t>(guesses.num_tokens) * num_ranks;
  if (experts_.size() < num_values) {
    experts_.resize(num_values);
    weights_.resize(num_values);
  }
  RouterArgs args;
  args.x = gate_input_;
  args.weight = gates_[target_layer].weight;
  args.correction = gates_[target_layer].correction;
  args.scoring = rules_.scoring;
  args.num_experts = rules_.num_experts;
  args.top_k = num_ranks;
  args.num_groups = rules_.num_groups;
  args.top_groups = rules_.top_groups;
  args.experts = experts_.data();
  args.weights = weights_.data();
  ops_.router(args);
  for (int64_t row = 0; row < guesses.num_tokens; ++row) {
    std::copy_n(experts_.data() + row * num_ranks, num_ranks, guesses.row(row));
  }
}

}  // namespace augur
