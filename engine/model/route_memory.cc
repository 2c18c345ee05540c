#include "engine/model/route_memory.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <system_error>

#include "cache/projection_file.h"
#include "configs/config_error.h"
#include "engine/log.h"
#include "kernels/require.h"
#include "prefetch/exact_routes_predictor.h"
#include "prefetch/route_cache_predictor.h"

namespace augur {
namespace {

using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

}  // namespace

RouteReport::Gate& RouteReport::Gate::operator+=(const Gate& other) {
  num_rows += other.num_rows;
  num_answered_rows += other.num_answered_rows;
  num_gated_rows += other.num_gated_rows;
  gate_us += other.gate_us;
  look_up_us += other.look_up_us;
  return *this;
}

RouteReport::Gate RouteReport::total_gate() const {
  Gate total;
  for (const Layer& layer : layers) total += layer.gate;
  return total;
}

RouteCounts RouteReport::total_by_state() const {
  RouteCounts total;
  for (const Layer& layer : layers) total += layer.by_state.counts;
  return total;
}

int RouteReport::num_switched_off() const {
  return static_cast<int>(std::count_if(layers.begin(), layers.end(), [](const Layer& layer) {
    return layer.by_state.is_switched_off;
  }));
}

RouteMemory::RouteMemory(const RouteMemoryPlan& plan, int64_t max_tokens)
    : plan_(plan),
      gates_(plan.shape.moe_layers.size()),
      outcomes_(max_tokens),
      is_answered_(max_tokens) {
  AUGUR_REQUIRE(plan_.is_on(), "a plan of no route cache");
  const std::vector<int>& layers = plan_.shape.moe_layers;
  moe_idx_of_layer_.assign(layers.back() + 1, -1);
  for (int i = 0; i < std::ssize(layers); ++i) moe_idx_of_layer_[layers[i]] = i;
  if (plan_.by_tokens) {
    ExactRoutesShape shape = *plan_.by_tokens;
    shape.max_tokens = max_tokens;
    by_tokens_.emplace(std::move(shape));
    return;
  }
  by_state_.emplace(plan_.shape, *plan_.by_state);
  std::error_code error;
  if (plan_.projection_file.empty()) return;
  if (std::filesystem::exists(plan_.projection_file, error)) {
    by_state_->set_projections(load_projections(plan_.projection_file,
                                                static_cast<int>(layers.size()),
                                                plan_.shape.hidden_size, plan_.by_state->dims));
  } else {
    is_to_be_saved_ = true;
  }
}

void RouteMemory::on_step(const StepRows& rows) {
  if (!plan_.serves) return;  // the predictor tells the cache
  if (by_state_) by_state_->begin_step();
  if (by_tokens_) {
    const Clock::time_point start = Clock::now();
    by_tokens_->on_step(rows);
    find_texts_us_ += us_since(start);
  }
}

void RouteMemory::on_step_end() {
  if (is_to_be_saved_) save_projections_once();
}

// What was fitted is worth minutes of sampling, but no request: trouble is told, and that is all.
void RouteMemory::save_projections_once() {
  const std::vector<int>& layers = plan_.shape.moe_layers;
  const bool is_complete = std::all_of(
      layers.begin(), layers.end(), [&](int layer) { return by_state_->report(layer).is_ready; });
  if (!is_complete) return;
  is_to_be_saved_ = false;
  try {
    save_projections(plan_.projection_file, by_state_->projections());
  } catch (const ConfigError& error) {
    log_warning("the route cache's projections are not kept: {}", error.what());
  }
}

RouteReport::Gate& RouteMemory::gate_of(int layer_idx) {
  const bool is_known = layer_idx >= 0 && layer_idx < std::ssize(moe_idx_of_layer_);
  const int idx = is_known ? moe_idx_of_layer_[layer_idx] : -1;
  AUGUR_REQUIRE(idx >= 0, "layer " + std::to_string(layer_idx) + " is no MoE layer");
  return gates_[idx];
}

std::span<const uint8_t> RouteMemory::answer(int layer_idx,
                                             const Tensor& gate_input,
                                             int32_t* experts,
                                             float* weights) {
  const int64_t num_rows = gate_input.num_rows;
  AUGUR_REQUIRE(num_rows <= std::ssize(is_answered_), std::to_string(num_rows) + " rows");
  RouteReport::Gate& gate = gate_of(layer_idx);
  gate.num_rows += num_rows;
  if (!plan_.serves) return {};
  const Clock::time_point start = Clock::now();
  if (by_state_) {
    answer_by_state(layer_idx, gate_input, experts, weights);
  } else {
    answer_by_tokens(layer_idx, num_rows, experts, weights);
  }
  gate.look_up_us += us_since(start);
  gate.num_answered_rows +=
      std::count(is_answered_.begin(), is_answered_.begin() + num_rows, uint8_t{1});
  return std::span(is_answered_).first(num_rows);
}

void RouteMemory::answer_by_state(int layer_idx,
                                  const Tensor& gate_input,
                                  int32_t* experts,
                                  float* weights) {
  const std::span<RowOutcome> outcomes = std::span(outcomes_).first(gate_input.num_rows);
  by_state_->try_serve(layer_idx, gate_input, experts, weights, outcomes);
  std::transform(outcomes.begin(), outcomes.end(), is_answered_.begin(),
                 [](RowOutcome outcome) -> uint8_t { return outcome == RowOutcome::kServed; });
}

void RouteMemory::answer_by_tokens(int layer_idx,
                                   int64_t num_rows,
                                   int32_t* experts,
                                   float* weights) {
  const int top_k = plan_.shape.top_k;
  for (int64_t row = 0; row < num_rows; ++row) {
    const ExactRoutes::Routes routes = by_tokens_->routes(row, layer_idx);
    is_answered_[row] = !routes.experts.empty();
    std::copy(routes.experts.begin(), routes.experts.end(), experts + row * top_k);
    std::copy(routes.weights.begin(), routes.weights.end(), weights + row * top_k);
  }
}

void RouteMemory::learn(const GateRun& run) {
  RouteReport::Gate& gate = gate_of(run.layer_idx);
  gate.num_gated_rows += run.num_gated_rows;
  gate.gate_us += run.gate_us;
  if (!plan_.serves) return;  // the predictor is told
  if (by_state_) {
    by_state_->learn(run.layer_idx, run.num_rows, run.experts, run.weights);
    return;
  }
  const int top_k = plan_.shape.top_k;
  for (int64_t row = 0; row < run.num_rows; ++row) {
    if (is_answered_[row] != 0) continue;
    by_tokens_->record(row, run.layer_idx, run.experts + row * top_k, run.weights + row * top_k);
  }
}

std::unique_ptr<Predictor> RouteMemory::make_predictor() {
  if (by_state_) return std::make_unique<RouteCachePredictor>(*by_state_);
  return std::make_unique<ExactRoutesPredictor>(*by_tokens_, /*feeds=*/!plan_.serves);
}

RouteReport RouteMemory::report() const {
  RouteReport report;
  report.serves = plan_.serves;
  report.is_exact = by_tokens_.has_value();
  report.find_texts_us = find_texts_us_;
  if (by_tokens_) report.by_tokens = by_tokens_->counts();
  for (size_t i = 0; i < gates_.size(); ++i) {
    RouteReport::Layer layer = {.layer_idx = plan_.shape.moe_layers[i], .gate = gates_[i]};
    if (by_state_) {
      layer.by_state = by_state_->report(layer.layer_idx);
      // Of a cache that foretells, the predictor looks up.
      if (!plan_.serves) layer.gate.look_up_us = layer.by_state.counts.look_up_us;
    }
    report.layers.push_back(layer);
  }
  return report;
}

}  // namespace augur
