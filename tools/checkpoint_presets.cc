#include "tools/checkpoint_presets.h"

#include <array>

namespace augur {
namespace {

constexpr std::string_view kQwen3_30bA3b = R"({
  "architectures": ["Qwen3MoeForCausalLM"],
  "model_type": "qwen3_moe",
  "hidden_act": "silu",
  "hidden_size": 2048,
  "intermediate_size": 6144,
  "moe_intermediate_size": 768,
  "num_hidden_layers": 48,
  "num_attention_heads": 32,
  "num_key_value_heads": 4,
  "head_dim": 128,
  "num_experts": 128,
  "num_experts_per_tok": 8,
  "norm_topk_prob": true,
  "decoder_sparse_step": 1,
  "mlp_only_layers": [],
  "attention_bias": false,
  "vocab_size": 151936,
  "max_position_embeddings": 40960,
  "rope_theta": 1000000.0,
  "rope_scaling": null,
  "rms_norm_eps": 1e-06,
  "use_sliding_window": false,
  "tie_word_embeddings": false,
  "bos_token_id": 151643,
  "eos_token_id": 151645,
  "torch_dtype": "bfloat16"
})";

constexpr std::string_view kGlm45Air = R"({
  "architectures": ["Glm4MoeForCausalLM"],
  "model_type": "glm4_moe",
  "hidden_act": "silu",
  "hidden_size": 4096,
  "intermediate_size": 10944,
  "moe_intermediate_size": 1408,
  "num_hidden_layers": 46,
  "num_attention_heads": 96,
  "num_key_value_heads": 8,
  "head_dim": 128,
  "n_routed_experts": 128,
  "num_experts_per_tok": 8,
  "n_shared_experts": 1,
  "first_k_dense_replace": 1,
  "n_group": 1,
  "topk_group": 1,
  "norm_topk_prob": true,
  "routed_scaling_factor": 1.0,
  "attention_bias": true,
  "use_qk_norm": false,
  "partial_rotary_factor": 0.5,
  "vocab_size": 151552,
  "max_position_embeddings": 131072,
  "rope_theta": 1000000.0,
  "rope_scaling": null,
  "rms_norm_eps": 1e-05,
  "tie_word_embeddings": false,
  "eos_token_id": [151329, 151336, 151338],
  "pad_token_id": 151329,
  "torch_dtype": "bfloat16"
})";

constexpr std::string_view kLlama31_8b = R"({
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_act": "silu",
  "hidden_size": 4096,
  "intermediate_size": 14336,
  "num_hidden_layers": 32,
  "num_attention_heads": 32,
  "num_key_value_heads": 8,
  "head_dim": 128,
  "attention_bias": false,
  "mlp_bias": false,
  "vocab_size": 128256,
  "max_position_embeddings": 131072,
  "rope_theta": 500000.0,
  "rope_scaling": {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192
  },
  "rms_norm_eps": 1e-05,
  "tie_word_embeddings": false,
  "bos_token_id": 128000,
  "eos_token_id": [128001, 128008, 128009],
  "torch_dtype": "bfloat16"
})";

constexpr std::string_view kTiny = R"({
  "architectures": ["Glm4MoeForCausalLM"],
  "model_type": "glm4_moe",
  "hidden_act": "silu",
  "hidden_size": 128,
  "intermediate_size": 256,
  "moe_intermediate_size": 64,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 32,
  "n_routed_experts": 8,
  "num_experts_per_tok": 2,
  "n_shared_experts": 1,
  "first_k_dense_replace": 1,
  "n_group": 1,
  "topk_group": 1,
  "norm_topk_prob": true,
  "routed_scaling_factor": 1.0,
  "attention_bias": true,
  "use_qk_norm": true,
  "partial_rotary_factor": 0.5,
  "vocab_size": 8192,
  "max_position_embeddings": 4096,
  "rope_theta": 10000.0,
  "rope_scaling": null,
  "rms_norm_eps": 1e-05,
  "tie_word_embeddings": false,
  "eos_token_id": [8182, 8189, 8191],
  "torch_dtype": "bfloat16"
})";

constexpr std::array<CheckpointPreset, 4> kPresets = {{
    {"qwen3-30b-a3b", kQwen3_30bA3b},
    {"glm-4.5-air", kGlm45Air},
    {"llama-3.1-8b", kLlama31_8b},
    {"tiny", kTiny},
}};

}  // namespace

std::span<const CheckpointPreset> checkpoint_presets() {
  return kPresets;
}

}  // namespace augur
