// What a decoder-only model is made of, whatever its family: the data a model is reduced to.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace augur {

enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn };

struct RopeConfig {
  double theta = 10000;
  int rotary_dim = 0;  // even, <= head_dim
  bool is_interleaved = false;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;
  int64_t original_max_position_embeddings = 0;
  double low_freq_factor = 1;    // llama3
  double high_freq_factor = 4;   // llama3
  double beta_fast = 32;         // yarn
  double beta_slow = 1;          // yarn
  double attention_factor = 0;   // yarn; 0: 0.1 ln(factor) + 1
  bool rounds_ramp_ends = true;  // yarn; the key is `truncate`
};

struct AttentionConfig {
  int num_heads = 0;
  int num_kv_heads = 0;  // divides num_heads
  int head_dim = 0;      // even
  bool has_qkv_bias = false;
  bool has_output_bias = false;
  bool has_qk_norm = false;
};

enum class ExpertScoring : uint8_t { kSoftmax, kSigmoid };

struct MoeConfig {
  int num_experts = 0;  // 0: a dense model
  int top_k = 0;
  int64_t intermediate_size = 0;
  int64_t shared_intermediate_size = 0;  // 0: no shared expert
  ExpertScoring scoring = ExpertScoring::kSoftmax;
  bool has_correction_bias = false;
  bool normalise_top_k = true;
  float routed_scaling_factor = 1;
  int num_groups = 1;
  int top_groups = 1;
};

enum class LayerKind : uint8_t { kDense, kMoe };

struct ModelConfig {
  std::string architecture;  // as in config.json, "Glm4MoeForCausalLM"
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  int64_t dense_intermediate_size = 0;  // of LayerKind::kDense layers
  float rms_norm_eps = 0;
  bool tie_word_embeddings = false;
  AttentionConfig attention;
  RopeConfig rope;
  MoeConfig moe;
  std::vector<LayerKind> layers;       // size: number of decoder layers
  std::vector<int32_t> eos_token_ids;  // config.json and generation_config.json together
  int32_t bos_token_id = -1;           // -1: none

  int num_layers() const { return static_cast<int>(layers.size()); }
  /// The numbers of the layers that have experts, rising.
  std::vector<int> moe_layers() const {
    std::vector<int> numbers;
    for (int layer = 0; layer < num_layers(); ++layer) {
      if (layers[layer] == LayerKind::kMoe) numbers.push_back(layer);
    }
    return numbers;
  }
  int num_moe_layers() const { return static_cast<int>(moe_layers().size()); }
};

}  // namespace augur
