#include "cache/route_cache.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <string>
#include <utility>

#include "kernels/require.h"

namespace augur {
namespace {

/// Scattered bits of a number. Source: Steele, Lea and Flood 2014, the finaliser of SplitMix64.
uint64_t scatter(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void require_valid(const RouteCacheShape& shape, const RouteCacheConfig& config) {
  AUGUR_REQUIRE(shape.hidden_size >= 1 && shape.hidden_size <= Projection::kMaxHiddenSize &&
                    shape.top_k >= 1 && shape.top_k <= shape.num_experts,
                std::to_string(shape.hidden_size) + " values, top " + std::to_string(shape.top_k) +
                    " of " + std::to_string(shape.num_experts));
  const std::vector<int>& layers = shape.moe_layers;
  const bool is_rising =
      std::adjacent_find(layers.begin(), layers.end(), std::greater_equal<>()) == layers.end();
  AUGUR_REQUIRE(!layers.empty() && layers.front() >= 0 && is_rising,
                std::to_string(layers.size()) + " MoE layers, or not in rising order");
  AUGUR_REQUIRE(config.capacity >= 1 && config.capacity <= int64_t{1} << 30,
                "capacity is " + std::to_string(config.capacity));
  AUGUR_REQUIRE(config.dims >= Projection::kMinDims && config.dims <= Projection::kMaxDims &&
                    config.dims <= shape.hidden_size,
                "dims is " + std::to_string(config.dims));
  AUGUR_REQUIRE(config.num_samples > config.dims && config.num_samples <= 1 << 16,
                "num_samples is " + std::to_string(config.num_samples));
  AUGUR_REQUIRE(config.check_period >= 1, std::to_string(config.check_period));
  AUGUR_REQUIRE(
      config.num_later_layers >= 0 && config.num_later_layers <= RouteCache::kMaxLaterLayers,
      "num_later_layers is " + std::to_string(config.num_later_layers));
  AUGUR_REQUIRE(config.max_rows >= 1 && config.max_rows <= 1 << 16,
                "max_rows is " + std::to_string(config.max_rows));
}

int capacity_of_layer(const RouteCacheShape& shape, const RouteCacheConfig& config) {
  const auto num_layers = static_cast<int64_t>(shape.moe_layers.size());
  return static_cast<int>(std::max<int64_t>(config.capacity / num_layers, 1));
}

int entry_experts(const RouteCacheShape& shape, const RouteCacheConfig& config) {
  return (1 + config.num_later_layers) * shape.top_k;
}

ThresholdLimits threshold_limits(const RouteCacheConfig& config) {
  return {config.similarity_threshold, config.lowest_threshold, config.highest_threshold,
          config.mode == RouteCacheMode::kServe ? config.min_agreement : config.min_hint_agreement};
}

bool is_finite(const float* row, int64_t length) {
  return std::all_of(row, row + length, [](float value) { return std::isfinite(value); });
}

}  // namespace

RouteCache::RouteCache(RouteCacheShape shape, const RouteCacheConfig& config)
    : shape_(std::move(shape)), config_(config) {
  require_valid(shape_, config_);
  moe_idx_of_layer_.assign(shape_.moe_layers.back() + 1, -1);
  const int num_layers = static_cast<int>(shape_.moe_layers.size());
  for (int i = 0; i < num_layers; ++i) moe_idx_of_layer_[shape_.moe_layers[i]] = i;
  if (config_.mode == RouteCacheMode::kOff) return;

  layer_capacity_ = capacity_of_layer(shape_, config_);
  entry_experts_ = entry_experts(shape_, config_);
  projections_.resize(num_layers);
  samples_.resize(num_layers);
  layers_.reserve(num_layers);
  for (int i = 0; i < num_layers; ++i) {
    layers_.emplace_back(layer_capacity_, config_.dims, shape_.top_k, entry_experts_,
                         threshold_limits(config_));
    if (config_.projection == ProjectionKind::kRandom) {
      projections_[i] = Projection::random(shape_.hidden_size, config_.dims, config_.seed + i);
    }
  }
  found_.resize(1 + config_.num_later_layers);
  for (Found& found : found_) {
    found.rows.resize(config_.max_rows);
    found.stored.resize(config_.max_rows);
    found.experts.resize(static_cast<size_t>(config_.max_rows) * entry_experts_);
  }
  projected_.resize(static_cast<size_t>(config_.max_rows) * Projection::kMaxDims);
}

int64_t RouteCache::max_bytes(const RouteCacheShape& shape, const RouteCacheConfig& config) {
  require_valid(shape, config);
  if (config.mode == RouteCacheMode::kOff) return 0;
  const auto num_layers = static_cast<int64_t>(shape.moe_layers.size());
  const int num_experts = entry_experts(shape, config);
  const int64_t entries = num_layers * RouteLayer::num_bytes(capacity_of_layer(shape, config),
                                                             config.dims, shape.top_k, num_experts);
  const int64_t row = int64_t{sizeof(RouteMatch) + sizeof(RouteSlot)} + int64_t{4} * num_experts;
  const int64_t scratch =
      config.max_rows * ((1 + config.num_later_layers) * row + Projection::kMaxDims * 4 + 1);
  const int64_t matrices = num_layers * (shape.hidden_size + 1) * Projection::kMaxDims * 4;
  // A fit takes twice its sample and a little more; one layer samples whatever the bound.
  const int64_t sample = shape.hidden_size * config.num_samples * 4;
  const int64_t samples = config.projection == ProjectionKind::kPca
                              ? std::max(config.max_sample_bytes, sample) + 3 * sample
                              : 0;
  return entries + scratch + matrices + samples;
}

void RouteCache::set_projections(std::vector<Projection> by_moe_layer) {
  AUGUR_REQUIRE(config_.mode != RouteCacheMode::kOff, "the cache is off");
  AUGUR_REQUIRE(by_moe_layer.size() == layers_.size(),
                std::to_string(by_moe_layer.size()) + " projections for " +
                    std::to_string(layers_.size()) + " layers");
  for (const Projection& projection : by_moe_layer) {
    AUGUR_REQUIRE(
        projection.hidden_size() == shape_.hidden_size && projection.dims() == config_.dims,
        std::to_string(projection.hidden_size()) + " to " + std::to_string(projection.dims()));
  }
  projections_ = std::move(by_moe_layer);
  for (RouteLayer& layer : layers_) layer.clear();
  for (std::vector<float>& samples : samples_) samples = {};
  num_sampling_ = 0;
  begin_step();
}

std::vector<Projection> RouteCache::projections() const {
  const bool is_complete =
      std::all_of(projections_.begin(), projections_.end(),
                  [](const Projection& projection) { return projection.is_present(); });
  return is_complete ? projections_ : std::vector<Projection>();
}

void RouteCache::begin_step() {
  ++step_idx_;
}

int RouteCache::moe_idx(int layer) const {
  const bool is_known = layer >= 0 && layer < std::ssize(moe_idx_of_layer_);
  const int idx = is_known ? moe_idx_of_layer_[layer] : -1;
  AUGUR_REQUIRE(idx >= 0, "layer " + std::to_string(layer) + " is no MoE layer");
  return idx;
}

bool RouteCache::is_switched_off(const RouteLayer& layer) const {
  return config_.mode == RouteCacheMode::kServe && layer.threshold().is_hopeless();
}

void RouteCache::sample(int moe_idx, const Tensor& gate_input) {
  const int64_t hidden_size = shape_.hidden_size;
  const int64_t num_floats = hidden_size * config_.num_samples;
  std::vector<float>& samples = samples_[moe_idx];
  if (samples.capacity() == 0) {
    const bool has_room = (num_sampling_ + 1) * num_floats * 4 <= config_.max_sample_bytes;
    if (num_sampling_ > 0 && !has_room) return;
    samples.reserve(static_cast<size_t>(num_floats));
    ++num_sampling_;
  }
  for (int64_t row = 0; row < gate_input.num_rows && std::ssize(samples) < num_floats; ++row) {
    const float* x = gate_input.row<float>(row);
    if (!is_finite(x, hidden_size)) continue;
    samples.insert(samples.end(), x, x + hidden_size);
    ++layers_[moe_idx].counts().num_sampled_rows;
  }
  if (std::ssize(samples) < num_floats) return;
  projections_[moe_idx] =
      Projection::fit(samples.data(), config_.num_samples, hidden_size, config_.dims);
  samples = {};
  --num_sampling_;
}

// One hit in check_period, scattered so that no rhythm of the text hides from the checks.
RowOutcome RouteCache::decide(RouteLayer& layer, const RouteMatch& match) const {
  if (!match.is_hit) return RowOutcome::kMiss;
  if (config_.mode != RouteCacheMode::kServe || !layer.threshold().is_proven()) {
    return RowOutcome::kCheck;
  }
  const auto hit_idx = static_cast<uint64_t>(layer.counts().num_hits);
  const bool is_sampled =
      scatter(config_.seed * 0x9e3779b97f4a7c15u + hit_idx) % config_.check_period == 0;
  return is_sampled ? RowOutcome::kCheck : RowOutcome::kServed;
}

void RouteCache::look_up(int moe_idx, const Tensor& gate_input) {
  AUGUR_REQUIRE(gate_input.num_cols == shape_.hidden_size && gate_input.dtype == DType::kF32,
                "rows of " + std::to_string(gate_input.num_cols));
  Found& found = found_of(moe_idx);
  found.step_idx = step_idx_;
  found.moe_idx = moe_idx;
  found.num_rows = 0;
  RouteLayer& layer = layers_[moe_idx];
  if (!projections_[moe_idx].is_present()) return sample(moe_idx, gate_input);
  if (is_switched_off(layer)) return;

  const auto start = std::chrono::steady_clock::now();
  found.num_rows = std::min<int64_t>(gate_input.num_rows, config_.max_rows);
  const Projection& projection = projections_[moe_idx];
  projection.project(gate_input.rows(0, found.num_rows), projected_.data());
  for (int64_t row = 0; row < found.num_rows; ++row) {
    const float* values = projected_.data() + row * projection.num_padded_dims();
    found.rows[row] = layer.look_up(Key::of(values, config_.dims));
    found.stored[row] = {};
    if (!found.rows[row].is_hit) continue;
    const std::span<const int32_t> experts = layer.experts(found.rows[row].nearest.row);
    std::copy(experts.begin(), experts.end(), &found.experts[row * entry_experts_]);
  }
  const std::chrono::duration<double, std::micro> elapsed =
      std::chrono::steady_clock::now() - start;
  layer.counts().look_up_us += elapsed.count();
}

int64_t RouteCache::try_serve(int layer_idx,
                              const Tensor& gate_input,
                              int32_t* experts,
                              float* weights,
                              std::span<RowOutcome> outcomes) {
  const int idx = moe_idx(layer_idx);
  AUGUR_REQUIRE(std::ssize(outcomes) == gate_input.num_rows, std::to_string(outcomes.size()));
  std::fill(outcomes.begin(), outcomes.end(), RowOutcome::kMiss);
  if (config_.mode == RouteCacheMode::kOff) return 0;
  look_up(idx, gate_input);
  RouteLayer& layer = layers_[idx];
  Found& found = found_of(idx);
  int64_t num_served = 0;
  for (int64_t row = 0; row < found.num_rows; ++row) {
    RouteMatch& match = found.rows[row];
    outcomes[row] = decide(layer, match);
    match.is_served = outcomes[row] == RowOutcome::kServed;
    if (!match.is_served) continue;
    const int top_k = shape_.top_k;
    std::copy_n(layer.experts(match.nearest.row).data(), top_k, experts + row * top_k);
    std::copy_n(layer.weights(match.nearest.row).data(), top_k, weights + row * top_k);
    ++num_served;
  }
  layer.counts().num_served += num_served;
  return num_served;
}

void RouteCache::check(RouteLayer& layer,
                       const RouteMatch& match,
                       const int32_t* stored,
                       const int32_t* chosen) const {
  const int top_k = shape_.top_k;
  const auto num_agreed = std::count_if(chosen, chosen + top_k, [&](int32_t expert) {
    return std::find(stored, stored + top_k, expert) != stored + top_k;
  });
  RouteCounts& counts = layer.counts();
  ++counts.num_checks;
  counts.num_checked_experts += top_k;
  counts.num_agreed_experts += num_agreed;
  // A row before this one may have moved the threshold; hits at the old one say little of the new.
  if (match.threshold == layer.threshold().value()) {
    layer.threshold().on_check(static_cast<double>(num_agreed) / top_k);
  }
}

void RouteCache::tell_earlier_layers(int moe_idx, int64_t row, const int32_t* experts) {
  for (int distance = 1; distance <= std::min(config_.num_later_layers, moe_idx); ++distance) {
    const Found& found = found_of(moe_idx - distance);
    if (!is_of_step(found, moe_idx - distance) || row >= found.num_rows) continue;
    layers_[moe_idx - distance].foretell(found.stored[row], distance, experts);
  }
}

void RouteCache::learn(int layer_idx,
                       int64_t num_rows,
                       const int32_t* experts,
                       const float* weights) {
  const int idx = moe_idx(layer_idx);
  if (config_.mode == RouteCacheMode::kOff) return;
  Found& found = found_of(idx);
  AUGUR_REQUIRE(is_of_step(found, idx) && found.num_rows <= num_rows,
                "layer " + std::to_string(layer_idx) + " was not looked up in this step");
  RouteLayer& layer = layers_[idx];
  for (int64_t row = 0; row < std::min<int64_t>(num_rows, config_.max_rows); ++row) {
    const int32_t* chosen = experts + row * shape_.top_k;
    const bool is_looked_up = row < found.num_rows;
    if (is_looked_up && found.rows[row].is_served) continue;
    if (chosen[0] < 0) continue;
    tell_earlier_layers(idx, row, chosen);
    if (!is_looked_up) continue;  // no projection yet, or switched off
    const RouteMatch& match = found.rows[row];
    if (match.is_hit) check(layer, match, &found.experts[row * entry_experts_], chosen);
    found.stored[row] = layer.store(match, chosen, weights + row * shape_.top_k);
  }
}

void RouteCache::observe(const RoutingView& routing) {
  AUGUR_REQUIRE(config_.mode != RouteCacheMode::kServe, "served layers look up themselves");
  AUGUR_REQUIRE(routing.top_k == shape_.top_k, "top " + std::to_string(routing.top_k));
  if (config_.mode == RouteCacheMode::kOff) return;
  look_up(moe_idx(routing.layer_idx), routing.gate_input);
  learn(routing.layer_idx, routing.num_tokens, routing.experts, routing.weights);
}

std::span<const int32_t> RouteCache::hint(int64_t row, int target_layer, int distance) const {
  const int target = moe_idx(target_layer);
  if (config_.mode == RouteCacheMode::kOff) return {};
  AUGUR_REQUIRE(distance >= 1 && distance <= config_.num_later_layers, std::to_string(distance));
  if (target < distance) return {};
  const Found& found = found_of(target - distance);
  if (!is_of_step(found, target - distance) || row < 0 || row >= found.num_rows) return {};
  if (!found.rows[row].is_hit) return {};
  const std::span<const int32_t> experts =
      std::span(found.experts)
          .subspan(row * entry_experts_ + static_cast<size_t>(distance) * shape_.top_k,
                   shape_.top_k);
  return experts.front() < 0 ? std::span<const int32_t>() : experts;
}

RouteCache::LayerReport RouteCache::report(int layer_idx) const {
  const int idx = moe_idx(layer_idx);
  if (config_.mode == RouteCacheMode::kOff) return {};
  const RouteLayer& layer = layers_[idx];
  return {layer.counts(), layer.threshold().value(), projections_[idx].is_present(),
          is_switched_off(layer)};
}

RouteCounts RouteCache::total() const {
  RouteCounts total;
  for (const RouteLayer& layer : layers_) total += layer.counts();
  return total;
}

int RouteCache::num_switched_off() const {
  return static_cast<int>(
      std::count_if(layers_.begin(), layers_.end(),
                    [&](const RouteLayer& layer) { return is_switched_off(layer); }));
}

}  // namespace augur
