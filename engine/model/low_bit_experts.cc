#include "engine/model/low_bit_experts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/require.h"

namespace augur {
namespace {

// Rows that calibration runs at once: enough to use the kernels well, few enough to stay small.
constexpr int64_t kCalibrationRows = 64;

ExpertLayout int8_layout(const ModelConfig& model, const Ops& ops) {
  return expert_layout(ops, model.hidden_size, model.moe.intermediate_size, ExpertFormat::kInt8);
}

double length(const float* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{values[i]} * values[i];
  return std::sqrt(sum);
}

}  // namespace

LowBitCounts& LowBitCounts::operator+=(const LowBitCounts& other) {
  num_choices += other.num_choices;
  num_low_bit_choices += other.num_low_bit_choices;
  mass += other.mass;
  low_bit_mass += other.low_bit_mass;
  num_avoided_reads += other.num_avoided_reads;
  avoided_bytes += other.avoided_bytes;
  return *this;
}

LowBitExperts::LowBitExperts(const LowBitConfig& config,
                             const ModelConfig& model,
                             Ops& ops,
                             const ExpertStore& store,
                             const ExpertPool& pool)
    : config_(config),
      layout_(int8_layout(model, ops)),
      num_experts_(model.moe.num_experts),
      ops_(ops),
      store_(store),
      pool_(pool),
      copies_(ops, layout_, model.num_moe_layers(), num_experts_),
      layers_(model.layers.size()),
      served_(num_experts_),
      choices_(ops.allocate(kCalibrationRows * int64_t{sizeof(int32_t)})),
      ones_(ops.allocate(kCalibrationRows * int64_t{sizeof(float)})),
      outputs_(ops.allocate(kCalibrationRows * model.hidden_size * int64_t{sizeof(float)})) {
  AUGUR_REQUIRE(ops.uses_host_memory(), "the host cannot read the routing of this backend");
  std::fill_n(ones_.as<float>(), kCalibrationRows, 1.0f);
  int moe_layer_idx = 0;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (model.layers[i] != LayerKind::kMoe) continue;
    layers_[i].moe_layer_idx = moe_layer_idx++;
    layers_[i].norm_sum.resize(num_experts_);
    layers_[i].num_norms.resize(num_experts_);
    layers_[i].is_protected.resize(num_experts_);
  }
}

int64_t LowBitExperts::num_bytes(const ModelConfig& model, const Ops& ops) {
  const int64_t num_copies = int64_t{model.num_moe_layers()} * model.moe.num_experts;
  return ExpertSlots::num_bytes(int8_layout(model, ops), model.num_moe_layers(),
                                model.moe.num_experts) +
         num_copies * int64_t{sizeof(int32_t)} + kCalibrationRows * (8 + model.hidden_size * 4);
}

ExpertTable LowBitExperts::substitute(const RoutingView& routing,
                                      const Tensor& x,
                                      int32_t* experts) {
  Layer& layer = layers_.at(routing.layer_idx);
  AUGUR_REQUIRE(layer.moe_layer_idx >= 0,
                "layer " + std::to_string(routing.layer_idx) + " has no experts");
  const int64_t num_choices = routing.num_tokens * routing.top_k;
  layer.counts.num_choices += num_choices;
  layer.counts.mass =
      std::accumulate(routing.weights, routing.weights + num_choices, layer.counts.mass);
  if (layer.num_calibrated < config_.calibration_tokens) {
    calibrate(routing, x, layer);
  } else {
    decide(routing, layer);
    rewrite(routing, experts, layer.counts);
  }
  return copies_.table(layer.moe_layer_idx);
}

void LowBitExperts::calibrate(const RoutingView& routing, const Tensor& x, Layer& layer) {
  const int64_t num_rows =
      std::min(routing.num_tokens, config_.calibration_tokens - layer.num_calibrated);
  for (int64_t first = 0; first < num_rows; first += kCalibrationRows) {
    const int64_t count = std::min(kCalibrationRows, num_rows - first);
    RoutingView part = routing;
    part.num_tokens = count;
    part.experts += first * routing.top_k;
    for (int i = 0; i < routing.top_k; ++i) add_norms(part, x.rows(first, count), i, layer);
  }
  layer.num_calibrated += num_rows;
  if (layer.num_calibrated == config_.calibration_tokens) protect(layer);
}

// The copies stand for the experts here: they are always there, and the lengths of their outputs
// differ by less than a hundredth.
void LowBitExperts::add_norms(const RoutingView& routing,
                              const Tensor& x,
                              int choice,
                              Layer& layer) {
  auto* const choices = choices_.as<int32_t>();
  for (int64_t row = 0; row < x.num_rows; ++row) {
    choices[row] = routing.experts[row * routing.top_k + choice];
  }
  MoeArgs args;
  args.x = x;
  args.experts = choices;
  args.weights = ones_.as<float>();
  args.top_k = 1;
  args.table = copies_.table(layer.moe_layer_idx);
  args.out = dense(outputs_.data(), DType::kF32, x.num_rows, layout_.hidden_size);
  ops_.moe(args);
  for (int64_t row = 0; row < x.num_rows; ++row) {
    layer.norm_sum[choices[row]] += length(args.out.row<float>(row), layout_.hidden_size);
    ++layer.num_norms[choices[row]];
  }
}

// Layer by layer, since what layers add grows with the residual stream they add to: among all
// experts those of the last layers would come first, whatever their place within the layer.
void LowBitExperts::protect(Layer& layer) const {
  std::vector<double> norms(num_experts_);
  for (int expert = 0; expert < num_experts_; ++expert) {
    if (layer.num_norms[expert] == 0) continue;
    const double norm = layer.norm_sum[expert] / static_cast<double>(layer.num_norms[expert]);
    // What is not finite cannot be kept in int8.
    norms[expert] = std::isfinite(norm) ? norm : std::numeric_limits<double>::infinity();
  }
  std::vector<int> order(num_experts_);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return norms[a] > norms[b]; });
  order.resize(static_cast<size_t>(std::ceil(config_.protected_share * num_experts_)));
  for (const int expert : order) layer.is_protected[expert] = 1;
}

// Which experts copies may serve to every row that wants them.
void LowBitExperts::decide(const RoutingView& routing, const Layer& layer) {
  std::fill(served_.begin(), served_.end(), Served::kMayBeLowBit);
  for (int64_t row = 0; row < routing.num_tokens; ++row) {
    const int32_t* const experts = routing.experts + row * routing.top_k;
    const float* const weights = routing.weights + row * routing.top_k;
    const float* const end = weights + routing.top_k;
    const auto [least, largest] = std::minmax_element(weights, end);
    const double sum = std::accumulate(weights, end, 0.0);
    const bool is_unsure = double{*least} < config_.confidence * sum;
    // Choices come by falling score, which a correction bias can order otherwise than by weight.
    for (int i = 0; i < routing.top_k; ++i) {
      if (!is_unsure || i == largest - weights || layer.is_protected[experts[i]] != 0) {
        served_[experts[i]] = Served::kInFull;
      }
    }
  }
  for (int expert = 0; expert < num_experts_; ++expert) {
    const ExpertKey key = {routing.layer_idx, expert};
    // What is on its way has been paid for.
    if (pool_.is_resident(key) || pool_.is_fetching(key)) served_[expert] = Served::kInFull;
  }
}

void LowBitExperts::rewrite(const RoutingView& routing, int32_t* experts, LowBitCounts& counts) {
  for (int64_t i = 0; i < routing.num_tokens * routing.top_k; ++i) {
    const int32_t expert = experts[i];
    if (served_[expert] == Served::kInFull) continue;
    ++counts.num_low_bit_choices;
    counts.low_bit_mass += routing.weights[i];
    if (served_[expert] == Served::kMayBeLowBit) {
      served_[expert] = Served::kLowBit;
      ++counts.num_avoided_reads;
      counts.avoided_bytes += store_.stored_bytes({routing.layer_idx, expert});
    }
    experts[i] = expert + num_experts_;
  }
}

LowBitCounts LowBitExperts::total() const {
  LowBitCounts total;
  for (const Layer& layer : layers_) total += layer.counts;
  return total;
}

bool LowBitExperts::is_calibrated(int layer_idx) const {
  return layers_.at(layer_idx).num_calibrated == config_.calibration_tokens;
}

bool LowBitExperts::is_protected(ExpertKey key) const {
  const Layer& layer = layers_.at(key.layer);
  return layer.moe_layer_idx >= 0 && layer.is_protected.at(key.expert) != 0;
}

double LowBitExperts::output_norm(ExpertKey key) const {
  const Layer& layer = layers_.at(key.layer);
  if (layer.moe_layer_idx < 0 || layer.num_norms.at(key.expert) == 0) return 0;
  return layer.norm_sum[key.expert] / static_cast<double>(layer.num_norms[key.expert]);
}

}  // namespace augur
