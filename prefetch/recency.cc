#include "prefetch/recency.h"

#include <algorithm>
#include <string>
#include <utility>

#include "kernels/require.h"

namespace augur {
namespace {

// Older rows of a chunk hardly show in what the list begins with.
constexpr int64_t kRowsPerSequence = 16;

}  // namespace

Recency::Recency(MoeLayers layers, const Options& options)
    : layers_(std::move(layers)),
      depth_(std::min(options.depth, layers_.num_experts())),
      sequences_(options.max_idle_steps, options.max_sequences) {
  AUGUR_REQUIRE(options.depth >= 1, std::to_string(options.depth));
  all_.experts.assign(static_cast<size_t>(layers_.num_layers()) * depth_, -1);
}

std::span<int32_t> Recency::of_layer(History& history, int index) const {
  return std::span(history.experts).subspan(static_cast<size_t>(index) * depth_, depth_);
}

void Recency::on_step(const StepRows& rows) {
  rows_ = rows;
  sequences_.on_step();
  of_sequence_.clear();
  for (const int64_t id : rows.sequence_ids) {
    const auto make = [&] {
      auto history = std::make_unique<History>();
      history->experts.assign(all_.experts.size(), -1);
      return history;
    };
    of_sequence_.push_back(sequences_.get(id, make).first);
  }
}

void Recency::use(History& history, int index, std::span<const int32_t> chosen) const {
  const std::span<int32_t> list = of_layer(history, index);
  // From the last to the first, so that the first ends up in front.
  for (size_t k = chosen.size(); k-- > 0;) {
    if (chosen[k] < 0) continue;
    int32_t moved = chosen[k];
    for (int32_t& place : list) {
      std::swap(moved, place);
      if (moved == chosen[k] || moved < 0) break;
    }
  }
}

void Recency::on_routing(const RoutingView& routing) {
  const int index = layers_.checked_index(routing);
  AUGUR_REQUIRE(routing.num_tokens == rows_.num_tokens, std::to_string(routing.num_tokens) +
                                                            " rows in a step of " +
                                                            std::to_string(rows_.num_tokens));
  for (int64_t row = 0; row < routing.num_tokens; ++row) {
    const int32_t sequence = rows_.sequence_of_row[row];
    const int64_t later = row + kRowsPerSequence;
    if (later < routing.num_tokens && rows_.sequence_of_row[later] == sequence) continue;
    use(*of_sequence_[sequence], index, choices_of(routing, row));
    use(all_, index, choices_of(routing, row));
  }
}

void Recency::predict(int target_layer, const Guesses& guesses) {
  const int index = layers_.index_of(target_layer);
  if (guesses.num_tokens > kMaxGuessedRows) return;
  AUGUR_REQUIRE(guesses.num_tokens == rows_.num_tokens, std::to_string(guesses.num_tokens) +
                                                            " rows of guesses in a step of " +
                                                            std::to_string(rows_.num_tokens));
  for (int64_t row = 0; row < guesses.num_tokens; ++row) {
    const std::span<int32_t> ranked(guesses.row(row), guesses.width);
    auto end = ranked.begin();
    const auto append = [&](History& history) {
      const auto own_end = end;
      for (const int32_t expert : of_layer(history, index)) {
        if (expert < 0 || end == ranked.end()) break;
        if (std::find(ranked.begin(), own_end, expert) == own_end) *end++ = expert;
      }
    };
    append(*of_sequence_[rows_.sequence_of_row[row]]);
    append(all_);
  }
}

}  // namespace augur
