// GLM-4.5, GLM-4.5-Air, GLM-4.6. Zeng et al. 2025, arXiv:2508.06471.
//
// Their last tensors, model.layers.{num_hidden_layers}.*, are a draft layer that predicts one
// token further; it takes no part in the answer and is read past.
#include <algorithm>

#include "engine/model/architecture.h"
#include "engine/model/architecture_fields.h"

namespace augur {
namespace {

ModelConfig read(const HfConfig& config) {
  ModelConfig model = read_common_fields(config, {.partial_rotary_factor = 0.5});
  model.attention.has_qkv_bias = config.boolean_or("attention_bias", false);
  model.attention.has_qk_norm = config.boolean_or("use_qk_norm", false);

  MoeConfig& moe = model.moe;
  moe.num_experts = static_cast<int>(
      config.integer(config.present_of({"n_routed_experts", "num_local_experts"}), kExpertRange));
  moe.top_k = static_cast<int>(config.integer("num_experts_per_tok", kExpertRange));
  moe.intermediate_size = config.integer("moe_intermediate_size", kIntermediateRange);
  moe.shared_intermediate_size =
      config.integer_or("n_shared_experts", 1, {0, 256}) * moe.intermediate_size;
  moe.scoring = ExpertScoring::kSigmoid;
  moe.has_correction_bias = true;
  moe.normalise_top_k = config.boolean_or("norm_topk_prob", true);
  moe.routed_scaling_factor =
      static_cast<float>(config.number_or("routed_scaling_factor", 1, {1e-6, 1e6}));
  moe.num_groups = static_cast<int>(config.integer_or("n_group", 1, kExpertRange));
  moe.top_groups = static_cast<int>(config.integer_or("topk_group", 1, kExpertRange));

  const int64_t num_dense = config.integer_or("first_k_dense_replace", 1, {0, model.num_layers()});
  std::fill(model.layers.begin() + num_dense, model.layers.end(), LayerKind::kMoe);
  return model;
}

}  // namespace

Architecture glm4_moe_architecture() {
  return {"Glm4MoeForCausalLM", read, common_names()};
}

}  // namespace augur
