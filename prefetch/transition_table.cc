#include "prefetch/transition_table.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/require.h"
#include "prefetch/rank_experts.h"

namespace augur {
namespace {

// What a row that chose a source expert keeps of its weight at the next such row: half after 46
// rows. Any value from 0.96 to 0.9995 recalls nearly the same on recorded routing; a short memory
// follows a change of subject.
constexpr float kCountDecay = 0.985f;
// The same for usage_, per row of the layer.
constexpr float kUsageDecay = 0.998f;
// An expert seen in few rows is taken to lead where all rows go, as if seen in so many more. More
// recalls less: 12 instead of 1 costs 2 points on recorded routing.
constexpr float kPriorRows = 1;

}  // namespace

TransitionTable::TransitionTable(MoeLayers layers, int max_distance)
    : layers_(std::move(layers)), max_distance_(max_distance) {
  AUGUR_REQUIRE(max_distance >= 1, std::to_string(max_distance));
  const int64_t num_sources = int64_t{max_distance} * layers_.num_layers() * layers_.num_experts();
  counts_.resize(num_sources * layers_.num_experts());
  totals_.resize(num_sources);
  usage_.resize(int64_t{layers_.num_layers()} * layers_.num_experts());
  observed_.resize(max_distance + 1);
  scores_.resize(layers_.num_experts());
}

int64_t TransitionTable::num_bytes(const MoeLayers& layers, int max_distance) {
  const int64_t num_sources = int64_t{max_distance} * layers.num_layers() * layers.num_experts();
  return (num_sources * (layers.num_experts() + 1) +
          int64_t{layers.num_layers()} * layers.num_experts()) *
         static_cast<int64_t>(sizeof(float));
}

void TransitionTable::on_step(const StepRows& rows) {
  for (Observed& observed : observed_) observed.index = -1;
  last_idx_ = -1;
}

void TransitionTable::on_routing(const RoutingView& routing) {
  const int index = layers_.checked_index(routing);
  remember(index, routing);
  last_idx_ = index;
  const Observed& target = observed(index);
  for (int distance = 1; distance <= std::min(max_distance_, index); ++distance) {
    const Observed& source = observed(index - distance);
    // A layer may have been left out for some rows; then nothing can be said of what led where.
    if (source.index != index - distance || source.num_rows != target.num_rows) continue;
    learn(distance, source, target);
  }
}

void TransitionTable::remember(int index, const RoutingView& routing) {
  Observed& target = observed(index);
  target.index = index;
  target.top_k = routing.top_k;
  target.num_rows = std::min(routing.num_tokens, kMaxGuessedRows);
  const size_t num_choices = static_cast<size_t>(target.num_rows) * routing.top_k;
  if (target.experts.size() < num_choices) target.experts.resize(num_choices);
  float* const usage = usage_.data() + int64_t{index} * layers_.num_experts();
  for (int64_t i = 0; i < target.num_rows; ++i) {
    // The same rows of every layer: their number decides.
    const int64_t row = i * routing.num_tokens / target.num_rows;
    const std::span<const int32_t> chosen = choices_of(routing, row);
    std::copy(chosen.begin(), chosen.end(), target.experts.begin() + i * routing.top_k);
    for (int e = 0; e < layers_.num_experts(); ++e) usage[e] *= kUsageDecay;
    for (const int32_t expert : chosen) {
      if (expert >= 0) usage[expert] += 1 - kUsageDecay;
    }
  }
}

void TransitionTable::learn(int distance, const Observed& source, const Observed& target) {
  const int num_experts = layers_.num_experts();
  for (int64_t row = 0; row < source.num_rows; ++row) {
    for (int k = 0; k < source.top_k; ++k) {
      const int32_t expert = source.row(row)[k];
      if (expert < 0) continue;
      const int64_t at = entry(distance, source.index, expert);
      float* const counts = counts_.data() + at * num_experts;
      for (int e = 0; e < num_experts; ++e) counts[e] *= kCountDecay;
      for (int j = 0; j < target.top_k; ++j) {
        if (target.row(row)[j] >= 0) counts[target.row(row)[j]] += 1;
      }
      totals_[at] = totals_[at] * kCountDecay + 1;
    }
  }
}

void TransitionTable::predict(int target_layer, const Guesses& guesses) {
  const int target_idx = layers_.index_of(target_layer);
  const int distance = target_idx - last_idx_;
  if (last_idx_ < 0 || distance < 1 || distance > max_distance_) return;
  if (guesses.num_tokens > kMaxGuessedRows) return;
  const Observed& source = observed(last_idx_);
  AUGUR_REQUIRE(guesses.num_tokens == source.num_rows,
                std::to_string(guesses.num_tokens) + " rows of guesses, " +
                    std::to_string(source.num_rows) + " observed");
  const int num_experts = layers_.num_experts();
  const float* const usage = usage_.data() + int64_t{target_idx} * num_experts;
  for (int64_t row = 0; row < guesses.num_tokens; ++row) {
    std::fill(scores_.begin(), scores_.end(), 0.0f);
    for (int k = 0; k < source.top_k; ++k) {
      const int32_t expert = source.row(row)[k];
      if (expert < 0) continue;
      const int64_t at = entry(distance, last_idx_, expert);
      const float* const counts = counts_.data() + at * num_experts;
      const float scale = 1 / (totals_[at] + kPriorRows);
      for (int e = 0; e < num_experts; ++e) {
        scores_[e] += (counts[e] + kPriorRows * usage[e]) * scale;
      }
    }
    rank_experts(scores_, {guesses.row(row), static_cast<size_t>(guesses.width)}, order_);
  }
}

}  // namespace augur
