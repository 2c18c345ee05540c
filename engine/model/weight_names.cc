#include "engine/model/weight_names.h"

#include "kernels/require.h"

namespace augur {
namespace {

void fill_in(std::string& name, std::string_view placeholder, int number) {
  const size_t at = name.find(placeholder);
  if (at != std::string::npos) name.replace(at, placeholder.size(), std::to_string(number));
}

}  // namespace

std::string NameMap::name(WeightRole role, int layer, int expert) const {
  std::string name((*this)[role]);
  AUGUR_REQUIRE(!name.empty(), "role " + std::to_string(static_cast<int>(role)));
  fill_in(name, "{layer}", layer);
  fill_in(name, "{expert}", expert);
  return name;
}

NameMap common_names() {
  NameMap names;
  names[WeightRole::kEmbedding] = "model.embed_tokens.weight";
  names[WeightRole::kLmHead] = "lm_head.weight";
  names[WeightRole::kFinalNorm] = "model.norm.weight";
  names[WeightRole::kInputNorm] = "model.layers.{layer}.input_layernorm.weight";
  names[WeightRole::kPostAttentionNorm] = "model.layers.{layer}.post_attention_layernorm.weight";
  names[WeightRole::kQuery] = "model.layers.{layer}.self_attn.q_proj.weight";
  names[WeightRole::kKey] = "model.layers.{layer}.self_attn.k_proj.weight";
  names[WeightRole::kValue] = "model.layers.{layer}.self_attn.v_proj.weight";
  names[WeightRole::kOutput] = "model.layers.{layer}.self_attn.o_proj.weight";
  names[WeightRole::kQueryBias] = "model.layers.{layer}.self_attn.q_proj.bias";
  names[WeightRole::kKeyBias] = "model.layers.{layer}.self_attn.k_proj.bias";
  names[WeightRole::kValueBias] = "model.layers.{layer}.self_attn.v_proj.bias";
  names[WeightRole::kOutputBias] = "model.layers.{layer}.self_attn.o_proj.bias";
  names[WeightRole::kQueryNorm] = "model.layers.{layer}.self_attn.q_norm.weight";
  names[WeightRole::kKeyNorm] = "model.layers.{layer}.self_attn.k_norm.weight";
  names[WeightRole::kGate] = "model.layers.{layer}.mlp.gate_proj.weight";
  names[WeightRole::kUp] = "model.layers.{layer}.mlp.up_proj.weight";
  names[WeightRole::kDown] = "model.layers.{layer}.mlp.down_proj.weight";
  names[WeightRole::kRouter] = "model.layers.{layer}.mlp.gate.weight";
  names[WeightRole::kCorrectionBias] = "model.layers.{layer}.mlp.gate.e_score_correction_bias";
  names[WeightRole::kSharedGate] = "model.layers.{layer}.mlp.shared_experts.gate_proj.weight";
  names[WeightRole::kSharedUp] = "model.layers.{layer}.mlp.shared_experts.up_proj.weight";
  names[WeightRole::kSharedDown] = "model.layers.{layer}.mlp.shared_experts.down_proj.weight";
  names[WeightRole::kExpertGate] = "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight";
  names[WeightRole::kExpertUp] = "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight";
  names[WeightRole::kExpertDown] = "model.layers.{layer}.mlp.experts.{expert}.down_proj.weight";
  return names;
}

}  // namespace augur
