// Every weight of a model as the decoder reads it: views into memory that ModelWeights owns.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/expert_slots.h"
#include "configs/model_config.h"
#include "engine/model/expert_memory.h"
#include "engine/model/low_bit_experts.h"
#include "kernels/ops.h"
#include "kernels/weights.h"
#include "moe/moe_layer.h"

namespace augur {

struct LayerWeights {
  const float* input_norm = nullptr;           // [hidden]
  const float* post_attention_norm = nullptr;  // [hidden]
  PackedMatrix qkv;                            // rows: q heads, k heads, v heads
  const float* qkv_bias = nullptr;             // or null
  PackedMatrix output;
  const float* output_bias = nullptr;  // or null
  const float* q_norm = nullptr;       // [head_dim], or null
  const float* k_norm = nullptr;
  MlpWeights mlp;       // LayerKind::kDense
  MoeLayerWeights moe;  // LayerKind::kMoe
};

/// Move-only: the views point into the buffers, which stay put.
struct ModelWeights {
  PackedMatrix embedding;
  PackedMatrix lm_head;  // the embedding again when they are tied
  const float* final_norm = nullptr;
  RopeTable rope;
  std::vector<LayerWeights> layers;

  std::vector<Buffer> buffers;
  // The experts: all of them, those of some layers in bf16 and of others in int8, or as many as
  // there is room for, with copies in int8 where asked for. A dense model has none of these.
  std::unique_ptr<ExpertSlots> expert_slots;
  std::unique_ptr<ExpertSlots> int8_expert_slots;
  std::unique_ptr<ExpertMemory> expert_memory;
  std::unique_ptr<LowBitExperts> low_bit_experts;  // points into expert_memory
};

}  // namespace augur
