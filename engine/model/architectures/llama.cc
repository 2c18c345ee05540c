// Llama 2 and 3 and models of the same shape. Touvron et al. 2023, arXiv:2307.09288.
#include "engine/model/architecture.h"
#include "engine/model/architecture_fields.h"

namespace augur {
namespace {

ModelConfig read(const HfConfig& config) {
  ModelConfig model = read_common_fields(config);
  if (config.boolean_or("mlp_bias", false)) config.refuse("mlp_bias", "false");
  model.attention.has_qkv_bias = config.boolean_or("attention_bias", false);
  model.attention.has_output_bias = model.attention.has_qkv_bias;
  return model;
}

}  // namespace

Architecture llama_architecture() {
  return {"LlamaForCausalLM", read, common_names()};
}

}  // namespace augur
