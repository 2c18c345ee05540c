#include "prefetch/prefetch_planner.h"

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include "kernels/require.h"

namespace augur {
namespace {

Calibration::Options calibration_options(const MoeLayers& layers,
                                         size_t num_predictors,
                                         const PrefetchPlanner::Options& options) {
  Calibration::Options calibration;
  calibration.num_predictors = static_cast<int>(num_predictors);
  calibration.max_distance = options.max_distance;
  calibration.width = options.width;
  calibration.prior_precision =
      std::min(1.0, static_cast<double>(options.top_k) / layers.num_experts());
  return calibration;
}

}  // namespace

PrefetchPlanner::PrefetchPlanner(MoeLayers layers,
                                 std::vector<std::unique_ptr<Predictor>> predictors,
                                 int64_t expert_bytes,
                                 const Options& options,
                                 PrefetchSink& sink,
                                 const PrefetchBudget* budget)
    : layers_(std::move(layers)),
      options_(options),
      expert_bytes_(expert_bytes),
      sink_(sink),
      budget_(budget),
      awaited_(layers_.num_layers()),
      predictors_(std::move(predictors)),
      calibration_(calibration_options(layers_, predictors_.size(), options)),
      odds_(layers_.num_experts()),
      is_chosen_(layers_.num_experts()) {
  AUGUR_REQUIRE(expert_bytes > 0, std::to_string(expert_bytes) + " bytes");
  AUGUR_REQUIRE(options.top_k > 0 && options.min_probability > 0,
                "top_k " + std::to_string(options.top_k) + ", probability " +
                    std::to_string(options.min_probability));
  for (Awaited& awaited : awaited_) awaited.opinions.resize(options.max_distance);
}

bool PrefetchPlanner::wants_logits() const {
  return std::any_of(predictors_.begin(), predictors_.end(),
                     [](const auto& predictor) { return predictor->wants_logits(); });
}

Guesses PrefetchPlanner::guesses_of(Opinion& opinion, int predictor) {
  const size_t size = static_cast<size_t>(num_rows_) * options_.width;
  // Sized for any step when first used: guesses that nothing asks for take no memory.
  const size_t most = static_cast<size_t>(kMaxGuessedRows) * options_.width;
  if (opinion.experts.empty()) opinion.experts.resize(most * predictors_.size());
  return {std::span(opinion.experts).subspan(predictor * most, size), num_rows_, options_.width};
}

void PrefetchPlanner::on_step(const StepRows& rows) {
  drop_all();
  num_rows_ = rows.num_tokens;
  layer_budget_bytes_ = budget_ == nullptr ? std::numeric_limits<int64_t>::max()
                                           : budget_->bytes_per_layer(num_rows_);
  for (const auto& predictor : predictors_) predictor->on_step(rows);
  plan(-1);
}

void PrefetchPlanner::on_routing(const RoutingView& routing) {
  const int index = layers_.checked_index(routing);
  AUGUR_REQUIRE(
      routing.num_tokens == num_rows_,
      std::to_string(routing.num_tokens) + " rows in a step of " + std::to_string(num_rows_));
  score(index, routing);
  settle(index, routing);
  for (const auto& predictor : predictors_) predictor->on_routing(routing);
  plan(index);
}

void PrefetchPlanner::on_step_end() {
  for (const auto& predictor : predictors_) predictor->on_step_end();
  drop_all();
}

void PrefetchPlanner::plan(int routed_idx) {
  likely_.clear();
  // Without a budget to spend, guessing would be time lost.
  if (layer_budget_bytes_ <= 0 || num_rows_ < 1 || num_rows_ > kMaxGuessedRows) return;
  const int end_idx = std::min(routed_idx + options_.max_distance + 1, layers_.num_layers());
  for (int target_idx = routed_idx + 1; target_idx < end_idx; ++target_idx) {
    predict(target_idx, target_idx - routed_idx);
  }
  std::sort(likely_.begin(), likely_.end(), [](const ExpertOdds& a, const ExpertOdds& b) {
    const double value_a = a.probability / static_cast<double>(a.num_bytes);
    const double value_b = b.probability / static_cast<double>(b.num_bytes);
    return value_a != value_b ? value_a > value_b : a.key < b.key;
  });
  hand_over();
}

void PrefetchPlanner::predict(int target_idx, int distance) {
  Opinion& opinion = awaited_[target_idx].opinions[distance - 1];
  opinion.is_made = true;
  guesses_.clear();
  for (int p = 0; p < num_predictors(); ++p) {
    guesses_.push_back(guesses_of(opinion, p));
    std::fill(guesses_[p].experts.begin(), guesses_[p].experts.end(), -1);
    predictors_[p]->predict(layers_.layer(target_idx), guesses_[p]);
    ++counters_.num_predictions;
  }
  odds_.clear();
  odds_.add(guesses_, distance, calibration_);
  for (int expert = 0; expert < layers_.num_experts(); ++expert) {
    const double probability = odds_.probability(expert);
    if (probability < options_.min_probability) continue;
    const ExpertKey key = {layers_.layer(target_idx), expert};
    likely_.push_back({key, probability, distance, bytes_of_ ? bytes_of_(key) : expert_bytes_});
  }
}

void PrefetchPlanner::hand_over() {
  int64_t left_bytes = layer_budget_bytes_;
  bool is_over_budget = false;
  for (const ExpertOdds& odds : likely_) {
    const ExpertPlace place = sink_.place(odds.key);
    if (place == ExpertPlace::kResident) continue;
    const bool is_absent = place == ExpertPlace::kAbsent;
    if (is_absent && odds.num_bytes > left_bytes) {
      is_over_budget = true;
      continue;  // what is on the way already may still become more urgent, at no cost
    }
    const auto priority =
        odds.distance == 1 ? FetchPriority::kNextLayer : FetchPriority::kLaterLayers;
    if (!sink_.prefetch(odds.key, priority, odds.probability)) {
      ++counters_.num_refused;
      break;
    }
    if (!is_absent) continue;
    left_bytes -= odds.num_bytes;
    ++counters_.num_prefetched;
    counters_.prefetched_bytes += odds.num_bytes;
    awaited_[layers_.index_of(odds.key.layer)].prefetched.push_back(odds.key.expert);
  }
  if (is_over_budget) ++counters_.num_over_budget;
}

void PrefetchPlanner::score(int index, const RoutingView& routing) {
  for (int64_t row = 0; row < std::min(routing.num_tokens, kMaxGuessedRows); ++row) {
    int num_chosen = 0;
    for (const int32_t expert : choices_of(routing, row)) {
      if (expert < 0) continue;
      is_chosen_[expert] = 1;
      ++num_chosen;
    }
    for (int distance = 1; distance <= options_.max_distance; ++distance) {
      Opinion& opinion = awaited_[index].opinions[distance - 1];
      if (!opinion.is_made) continue;
      for (int p = 0; p < num_predictors(); ++p) {
        const Guesses guesses = guesses_of(opinion, p);
        calibration_.record(p, distance, {guesses.row(row), static_cast<size_t>(guesses.width)},
                            is_chosen_, num_chosen);
      }
    }
    for (const int32_t expert : choices_of(routing, row)) {
      if (expert >= 0) is_chosen_[expert] = 0;
    }
  }
  for (Opinion& opinion : awaited_[index].opinions) opinion.is_made = false;
}

void PrefetchPlanner::settle(int index, const RoutingView& routing) {
  for (int64_t i = 0; i < routing.num_tokens * routing.top_k; ++i) {
    if (routing.experts[i] >= 0) is_chosen_[routing.experts[i]] = 1;
  }
  for (int before = 0; before <= index; ++before) {
    for (const int32_t expert : awaited_[before].prefetched) {
      if (before == index && is_chosen_[expert] != 0) {
        ++counters_.num_used;
      } else {
        ++counters_.num_stale;
        sink_.on_stale({layers_.layer(before), expert});
      }
    }
    awaited_[before].prefetched.clear();
  }
  std::fill(is_chosen_.begin(), is_chosen_.end(), 0);
}

void PrefetchPlanner::drop_all() {
  for (int index = 0; index < layers_.num_layers(); ++index) {
    for (const int32_t expert : awaited_[index].prefetched) {
      ++counters_.num_stale;
      sink_.on_stale({layers_.layer(index), expert});
    }
    awaited_[index].prefetched.clear();
    for (Opinion& opinion : awaited_[index].opinions) opinion.is_made = false;
  }
}

}  // namespace augur
