#include "engine/model/weight_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <numeric>
#include <optional>
#include <utility>

#include "configs/config_error.h"
#include "engine/text/in_quotes.h"

namespace augur {
namespace {

constexpr size_t kMaxProblemsShown = 10;
constexpr size_t kMaxUnusedShown = 3;

// Walks a model's tensors; stops when the visitor has had enough.
class Walker {
 public:
  Walker(const ModelConfig& config, const std::function<bool(const WantedTensor&)>& visit)
      : config_(config), visit_(visit) {}

  void walk() {
    matrix(WeightRole::kEmbedding, config_.vocab_size, config_.hidden_size);
    for (layer_ = 0; layer_ < config_.num_layers() && wants_more_; ++layer_) {
      vector(WeightRole::kInputNorm, config_.hidden_size);
      walk_attention();
      vector(WeightRole::kPostAttentionNorm, config_.hidden_size);
      if (config_.layers[layer_] == LayerKind::kMoe) {
        walk_moe();
      } else {
        walk_mlp(WeightRole::kGate, WeightRole::kUp, WeightRole::kDown,
                 config_.dense_intermediate_size);
      }
    }
    layer_ = 0;
    vector(WeightRole::kFinalNorm, config_.hidden_size);
    if (!config_.tie_word_embeddings) {
      matrix(WeightRole::kLmHead, config_.vocab_size, config_.hidden_size);
    }
  }

 private:
  void walk_attention() {
    const AttentionConfig& attention = config_.attention;
    const int64_t q_size = int64_t{attention.num_heads} * attention.head_dim;
    const int64_t kv_size = int64_t{attention.num_kv_heads} * attention.head_dim;
    matrix(WeightRole::kQuery, q_size, config_.hidden_size);
    matrix(WeightRole::kKey, kv_size, config_.hidden_size);
    matrix(WeightRole::kValue, kv_size, config_.hidden_size);
    matrix(WeightRole::kOutput, config_.hidden_size, q_size);
    if (attention.has_qkv_bias) {
      vector(WeightRole::kQueryBias, q_size);
      vector(WeightRole::kKeyBias, kv_size);
      vector(WeightRole::kValueBias, kv_size);
    }
    if (attention.has_output_bias) vector(WeightRole::kOutputBias, config_.hidden_size);
    if (attention.has_qk_norm) {
      vector(WeightRole::kQueryNorm, attention.head_dim);
      vector(WeightRole::kKeyNorm, attention.head_dim);
    }
  }

  void walk_moe() {
    const MoeConfig& moe = config_.moe;
    matrix(WeightRole::kRouter, moe.num_experts, config_.hidden_size);
    if (moe.has_correction_bias) vector(WeightRole::kCorrectionBias, moe.num_experts);
    if (moe.shared_intermediate_size > 0) {
      walk_mlp(WeightRole::kSharedGate, WeightRole::kSharedUp, WeightRole::kSharedDown,
               moe.shared_intermediate_size);
    }
    for (expert_ = 0; expert_ < moe.num_experts && wants_more_; ++expert_) {
      walk_mlp(WeightRole::kExpertGate, WeightRole::kExpertUp, WeightRole::kExpertDown,
               moe.intermediate_size);
    }
    expert_ = 0;
  }

  void walk_mlp(WeightRole gate, WeightRole up, WeightRole down, int64_t intermediate_size) {
    matrix(gate, intermediate_size, config_.hidden_size);
    matrix(up, intermediate_size, config_.hidden_size);
    matrix(down, config_.hidden_size, intermediate_size);
  }

  void vector(WeightRole role, int64_t num_values) { matrix(role, num_values, 0); }
  void matrix(WeightRole role, int64_t num_rows, int64_t num_cols) {
    if (wants_more_) wants_more_ = visit_({role, layer_, expert_, num_rows, num_cols});
  }

  const ModelConfig& config_;
  const std::function<bool(const WantedTensor&)>& visit_;
  int layer_ = 0;
  int expert_ = 0;
  bool wants_more_ = true;
};

std::optional<WeightFormat> format_of(TensorDType dtype) {
  switch (dtype) {
    case TensorDType::kBF16:
      return WeightFormat::kBF16;
    case TensorDType::kF16:
      return WeightFormat::kF16;
    case TensorDType::kF32:
      return WeightFormat::kF32;
    default:
      return std::nullopt;
  }
}

// Matrices are packed in bf16; routers, norms and biases stay exact.
bool is_rounded_to_bf16(const WantedTensor& wanted) {
  return wanted.num_cols > 0 && wanted.role != WeightRole::kRouter;
}

TensorSource& place_in(WeightPlan& plan, const WantedTensor& wanted) {
  switch (wanted.role) {
    case WeightRole::kEmbedding:
    case WeightRole::kLmHead:
    case WeightRole::kFinalNorm:
      return plan.sources[wanted.role];
    case WeightRole::kExpertGate:
      return plan.layers[wanted.layer].experts.emplace_back().gate;
    case WeightRole::kExpertUp:
      return plan.layers[wanted.layer].experts.back().up;
    case WeightRole::kExpertDown:
      return plan.layers[wanted.layer].experts.back().down;
    default:
      return plan.layers[wanted.layer].sources[wanted.role];
  }
}

class Planner {
 public:
  Planner(const ModelConfig& config, const NameMap& names, const Checkpoint& checkpoint)
      : config_(config), names_(names), checkpoint_(checkpoint) {}

  WeightPlan plan() {
    plan_.layers.resize(config_.layers.size());
    is_used_.assign(checkpoint_.tensors().size(), false);
    visit_wanted_tensors(config_, [this](const WantedTensor& wanted) {
      add(wanted);
      return problems_.size() < kMaxProblemsShown;
    });
    if (!problems_.empty()) {
      throw ConfigError(checkpoint_.folder().string(),
                        fmt::format("the weights do not fit config.json ({}):\n  {}{}",
                                    config_.architecture, fmt::join(problems_, "\n  "),
                                    problems_.size() < kMaxProblemsShown
                                        ? ""
                                        : "\n  and perhaps more; the check stopped here"));
    }
    if (config_.tie_word_embeddings) {
      plan_.sources[WeightRole::kLmHead] = plan_.sources[WeightRole::kEmbedding];
    }
    count_unused();
    return std::move(plan_);
  }

 private:
  void add(const WantedTensor& wanted) {
    const std::string name = names_.name(wanted.role, wanted.layer, wanted.expert);
    // Made even when the tensor is refused, so that an expert's three stay together.
    TensorSource& source = place_in(plan_, wanted);
    const TensorInfo* tensor = checkpoint_.find(name);
    const std::vector<int64_t> shape = wanted.shape();
    if (tensor == nullptr) {
      problems_.push_back(
          fmt::format("{}: is missing; expected: [{}]", in_quotes(name), fmt::join(shape, ", ")));
      return;
    }
    const std::optional<WeightFormat> format = format_of(tensor->dtype);
    if (tensor->shape != shape || !format) {
      problems_.push_back(fmt::format("{}: found {}; expected: BF16, F16 or F32 [{}]",
                                      checkpoint_.where(*tensor), describe(*tensor),
                                      fmt::join(shape, ", ")));
      return;
    }
    source = {tensor->file_idx, *format, tensor->offset, wanted.num_rows,
              wanted.num_cols > 0 ? wanted.num_cols : 1};
    plan_.stored_bytes[static_cast<size_t>(kind_of(wanted.role))] += tensor->num_bytes;
    plan_.num_values += source.num_values();
    ++plan_.num_tensors;
    if (is_rounded_to_bf16(wanted)) {
      plan_.num_rounded_f16 += *format == WeightFormat::kF16;
      plan_.num_rounded_f32 += *format == WeightFormat::kF32;
    }
    is_used_[tensor - checkpoint_.tensors().data()] = true;
  }

  void count_unused() {
    for (size_t i = 0; i < is_used_.size(); ++i) {
      if (is_used_[i]) continue;
      const TensorInfo& tensor = checkpoint_.tensors()[i];
      if (is_of_draft_layer(tensor.name)) {
        ++plan_.num_draft_tensors;
        plan_.draft_bytes += tensor.num_bytes;
        continue;
      }
      ++plan_.num_unused_tensors;
      if (plan_.some_unused.size() < kMaxUnusedShown) plan_.some_unused.push_back(tensor.name);
    }
  }

  bool is_of_draft_layer(std::string_view name) const {
    constexpr std::string_view kLayers = "model.layers.";
    if (!name.starts_with(kLayers)) return false;
    name.remove_prefix(kLayers.size());
    int layer = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
    return error == std::errc() && end != name.data() + name.size() && *end == '.' &&
           layer >= config_.num_layers();
  }

  const ModelConfig& config_;
  const NameMap& names_;
  const Checkpoint& checkpoint_;
  WeightPlan plan_;
  std::vector<bool> is_used_;  // by index in checkpoint_.tensors()
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<int64_t> WantedTensor::shape() const {
  if (num_cols == 0) return {num_rows};
  return {num_rows, num_cols};
}

void visit_wanted_tensors(const ModelConfig& config,
                          const std::function<bool(const WantedTensor&)>& visit) {
  Walker(config, visit).walk();
}

std::string_view name_of(WeightKind kind) {
  switch (kind) {
    case WeightKind::kEmbedding:
      return "embedding and head";
    case WeightKind::kAttention:
      return "attention";
    case WeightKind::kDenseMlp:
      return "dense MLPs";
    case WeightKind::kSharedExperts:
      return "shared experts";
    case WeightKind::kExperts:
      return "experts";
    case WeightKind::kRouters:
      return "routers";
    case WeightKind::kNorms:
      return "norms";
  }
  return "";
}

WeightKind kind_of(WeightRole role) {
  switch (role) {
    case WeightRole::kEmbedding:
    case WeightRole::kLmHead:
      return WeightKind::kEmbedding;
    case WeightRole::kFinalNorm:
    case WeightRole::kInputNorm:
    case WeightRole::kPostAttentionNorm:
    case WeightRole::kQueryNorm:
    case WeightRole::kKeyNorm:
      return WeightKind::kNorms;
    case WeightRole::kQuery:
    case WeightRole::kKey:
    case WeightRole::kValue:
    case WeightRole::kOutput:
    case WeightRole::kQueryBias:
    case WeightRole::kKeyBias:
    case WeightRole::kValueBias:
    case WeightRole::kOutputBias:
      return WeightKind::kAttention;
    case WeightRole::kGate:
    case WeightRole::kUp:
    case WeightRole::kDown:
      return WeightKind::kDenseMlp;
    case WeightRole::kRouter:
    case WeightRole::kCorrectionBias:
      return WeightKind::kRouters;
    case WeightRole::kSharedGate:
    case WeightRole::kSharedUp:
    case WeightRole::kSharedDown:
      return WeightKind::kSharedExperts;
    case WeightRole::kExpertGate:
    case WeightRole::kExpertUp:
    case WeightRole::kExpertDown:
      return WeightKind::kExperts;
  }
  return WeightKind::kNorms;
}

int64_t WeightPlan::total_stored_bytes() const {
  return std::accumulate(stored_bytes.begin(), stored_bytes.end(), int64_t{0});
}

WeightPlan plan_weights(const ModelConfig& config,
                        const NameMap& names,
                        const Checkpoint& checkpoint) {
  return Planner(config, names, checkpoint).plan();
}

WeightPlan shapes_only_plan(const ModelConfig& config) {
  WeightPlan plan;
  plan.layers.resize(config.layers.size());
  visit_wanted_tensors(config, [&](const WantedTensor& wanted) {
    TensorSource& source = place_in(plan, wanted);
    source = {.file_idx = 0,
              .offset = plan.num_tensors,
              .num_rows = wanted.num_rows,
              .num_cols = wanted.num_cols > 0 ? wanted.num_cols : 1};
    plan.stored_bytes[static_cast<size_t>(kind_of(wanted.role))] += source.num_bytes();
    plan.num_values += source.num_values();
    ++plan.num_tensors;
    return true;
  });
  if (config.tie_word_embeddings) {
    plan.sources[WeightRole::kLmHead] = plan.sources[WeightRole::kEmbedding];
  }
  return plan;
}

std::vector<std::vector<ExpertSource>> expert_sources(const WeightPlan& plan) {
  std::vector<std::vector<ExpertSource>> sources;
  sources.reserve(plan.layers.size());
  for (const LayerPlan& layer : plan.layers) sources.push_back(layer.experts);
  return sources;
}

}  // namespace augur
