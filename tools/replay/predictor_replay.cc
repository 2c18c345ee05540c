#include "tools/replay/predictor_replay.h"

#include <algorithm>
#include <set>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

// One token after another as steps of one row.
class Steps {
 public:
  const StepRows& next(const TracedToken& token) {
    const bool is_prompt = token.phase == 0;
    if (was_generated_ && is_prompt) {
      ++sequence_id_;
      position_ = -1;
    }
    was_generated_ = !is_prompt;
    ++position_;
    // Tokens' names are not recorded; different ones keep prompts from being taken for each other.
    ++token_id_;
    rows_.num_tokens = 1;
    rows_.num_decode_tokens = is_prompt ? 0 : 1;
    rows_.token_ids = {&token_id_, 1};
    rows_.positions = {&position_, 1};
    rows_.sequence_of_row = {&kFirst, 1};
    rows_.sequence_ids = {&sequence_id_, 1};
    return rows_;
  }

 private:
  static constexpr int32_t kFirst = 0;
  StepRows rows_;
  int32_t token_id_ = -1;
  int32_t position_ = -1;
  int64_t sequence_id_ = 0;
  bool was_generated_ = false;
};

int64_t count_common(std::span<const int32_t> guesses, const std::vector<int32_t>& chosen) {
  return std::count_if(guesses.begin(), guesses.end(), [&](int32_t guess) {
    return std::find(chosen.begin(), chosen.end(), guess) != chosen.end();
  });
}

}  // namespace

MoeLayers moe_layers_of(const RoutingTrace& trace) {
  std::set<int> layers;
  for (const TracedToken& token : trace.tokens) {
    for (const auto& [layer, experts] : token.experts_of) layers.insert(layer);
  }
  return MoeLayers({layers.begin(), layers.end()}, trace.num_experts);
}

std::vector<RecallCount> replay_predictor(const RoutingTrace& trace,
                                          Predictor& predictor,
                                          const PredictorReplayOptions& options) {
  AUGUR_REQUIRE(options.max_distance >= 1, std::to_string(options.max_distance));
  const MoeLayers layers = moe_layers_of(trace);
  std::vector<RecallCount> recalls(options.max_distance);
  Steps steps;
  std::vector<int32_t> guessed;
  for (size_t i = 0; i < trace.tokens.size(); ++i) {
    const TracedToken& token = trace.tokens[i];
    const bool is_counted = static_cast<int64_t>(i) >= options.first_counted_token &&
                            (options.counts_prompts || token.phase != 0);
    predictor.on_step(steps.next(token));
    // What is known after MoE layer `routed_idx` about those behind it.
    const auto ask = [&](int routed_idx) {
      for (int distance = 1; is_counted && distance <= options.max_distance; ++distance) {
        if (routed_idx + distance >= layers.num_layers()) break;
        const int layer = layers.layer(routed_idx + distance);
        const auto chosen = token.experts_of.find(layer);
        if (chosen == token.experts_of.end()) continue;
        const size_t k = chosen->second.size();
        guessed.assign(2 * k, -1);
        predictor.predict(layer, {guessed, /*num_tokens=*/1, /*width=*/static_cast<int>(2 * k)});
        RecallCount& recall = recalls[distance - 1];
        recall.num_chosen += static_cast<int64_t>(k);
        recall.num_among_k += count_common(std::span(guessed).first(k), chosen->second);
        recall.num_among_2k += count_common(guessed, chosen->second);
      }
    };
    ask(-1);
    for (const auto& [layer, experts] : token.experts_of) {
      RoutingView routing;
      routing.layer_idx = layer;
      routing.num_tokens = 1;
      routing.top_k = static_cast<int>(experts.size());
      routing.experts = experts.data();
      predictor.on_routing(routing);
      ask(layers.index_of(layer));
    }
    predictor.on_step_end();
  }
  return recalls;
}

}  // namespace augur
