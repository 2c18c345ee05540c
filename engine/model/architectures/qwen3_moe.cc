// Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder. Yang et al. 2025, arXiv:2505.09388.
#include <algorithm>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/model/architecture_fields.h"

namespace augur {
namespace {

ModelConfig read(const HfConfig& config) {
  ModelConfig model = read_common_fields(config, {.uses_sliding_window = false});
  model.attention.has_qkv_bias = config.boolean_or("attention_bias", false);
  model.attention.has_output_bias = model.attention.has_qkv_bias;
  model.attention.has_qk_norm = true;

  MoeConfig& moe = model.moe;
  moe.num_experts = static_cast<int>(
      config.integer(config.present_of({"num_experts", "num_local_experts"}), kExpertRange));
  moe.top_k = static_cast<int>(config.integer("num_experts_per_tok", kExpertRange));
  moe.intermediate_size = config.integer("moe_intermediate_size", kIntermediateRange);
  moe.scoring = ExpertScoring::kSoftmax;
  moe.normalise_top_k = config.boolean_or("norm_topk_prob", false);

  const int64_t num_layers = model.num_layers();
  const int64_t sparse_step = config.integer_or("decoder_sparse_step", 1, kLayerRange);
  const std::vector<int64_t> dense = config.integers("mlp_only_layers", {0, num_layers - 1});
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    const bool is_listed = std::find(dense.begin(), dense.end(), layer) != dense.end();
    if (!is_listed && (layer + 1) % sparse_step == 0) model.layers[layer] = LayerKind::kMoe;
  }
  return model;
}

}  // namespace

Architecture qwen3_moe_architecture() {
  return {"Qwen3MoeForCausalLM", read, common_names()};
}

}  // namespace augur
