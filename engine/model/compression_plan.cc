#include "engine/model/compression_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "configs/config_error.h"
#include "engine/model/memory_plan.h"

namespace augur {
namespace {

// Layers with experts from the last to the first. What rounding changes in a layer goes through
// every attention and gate after it and turns choices there that were near-ties, so an early layer
// costs most: on two trained models the mean change of a token's log-probability falls with every
// layer, to two fifths and a quarter of the first one's (docs/lossy-modes.md).
std::vector<int> layers_by_loss(const std::vector<LayerKind>& layers) {
  std::vector<int> order;
  for (int layer = static_cast<int>(layers.size()) - 1; layer >= 0; --layer) {
    if (layers[layer] == LayerKind::kMoe) order.push_back(layer);
  }
  return order;
}

// Plans by rising loss: the KV cache in int8 costs more than all experts in int8 do.
std::vector<CompressionPlan> candidates(const CompressionChoices& choices) {
  std::vector<CompressionPlan> plans;
  for (const KvFormat format : choices.kv_formats) {
    CompressionPlan plan;
    plan.kv_format = format;
    plan.experts.assign(choices.layers.size(), ExpertFormat::kBF16);
    plans.push_back(plan);
    for (const int layer : layers_by_loss(choices.layers)) {
      plan.experts[layer] = ExpertFormat::kInt8;
      plans.push_back(plan);
    }
  }
  return plans;
}

void count_bytes(const CompressionChoices& choices, CompressionPlan& plan) {
  for (size_t i = 0; i < plan.experts.size(); ++i) {
    if (choices.layers[i] != LayerKind::kMoe) continue;
    if (plan.experts[i] == ExpertFormat::kInt8) {
      plan.int8_experts += {choices.native_layer_bytes, choices.int8_layer_bytes};
    } else {
      plan.other_experts += {choices.native_layer_bytes, choices.native_layer_bytes};
    }
  }
  plan.kv_cache =
      choices.kv_bytes(plan.int8_experts.after + plan.other_experts.after, plan.kv_format);
}

// "1-4, 6"
std::string layer_list(const std::vector<int>& layers) {
  std::string text;
  for (size_t i = 0; i < layers.size(); ++i) {
    const size_t first = i;
    while (i + 1 < layers.size() && layers[i + 1] == layers[i] + 1) ++i;
    if (!text.empty()) text += ", ";
    text +=
        i == first ? fmt::format("{}", layers[i]) : fmt::format("{}-{}", layers[first], layers[i]);
  }
  return text;
}

std::string line(std::string_view what, std::string_view format, const CompressedBytes& bytes) {
  return fmt::format("  {:<36} {:<6} {:>12} -> {:>12}\n", what, format, format_bytes(bytes.before),
                     format_bytes(bytes.after));
}

}  // namespace

CompressedBytes& CompressedBytes::operator+=(const CompressedBytes& other) {
  before += other.before;
  after += other.after;
  return *this;
}

CompressedBytes CompressionPlan::total() const {
  CompressedBytes total = int8_experts;
  total += other_experts;
  total += kv_cache;
  return total;
}

double CompressionPlan::ratio() const {
  const CompressedBytes all = total();
  return all.after > 0 ? static_cast<double>(all.before) / static_cast<double>(all.after) : 1;
}

std::string CompressionPlan::to_string() const {
  std::vector<int> in_int8;
  for (size_t i = 0; i < experts.size(); ++i) {
    if (experts[i] == ExpertFormat::kInt8) in_int8.push_back(static_cast<int>(i));
  }
  std::string text;
  if (int8_experts.before > 0) {
    text += line("experts of layers " + layer_list(in_int8), "int8", int8_experts);
  }
  if (other_experts.before > 0) text += line("experts of the other layers", "bf16", other_experts);
  text += line("KV cache", kv_format == KvFormat::kInt8 ? "int8" : "native", kv_cache);
  const CompressedBytes all = total();
  return text + fmt::format("  {:<43} {:>12} -> {:>12}, ratio {:.3f}\n", "total",
                            format_bytes(all.before), format_bytes(all.after), ratio());
}

CompressionPlan plan_compression(double ratio, const CompressionChoices& choices) {
  double largest = 1;
  for (CompressionPlan& plan : candidates(choices)) {
    count_bytes(choices, plan);
    if (plan.ratio() >= ratio) return plan;
    largest = std::max(largest, plan.ratio());
  }
  throw ConfigError("memory.compression.ratio",
                    fmt::format("found {}, accepted for this model and KV cache: up to {:.3f}, "
                                "which int8 for all experts and the cache comes to",
                                ratio, std::floor(largest * 1000) / 1000));
}

}  // namespace augur
