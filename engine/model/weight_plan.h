// Which tensors a model is made of, and where a checkpoint keeps each: decided, with dtype and
// shape checked, before memory for any of them is allocated.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "configs/model_config.h"
#include "engine/model/checkpoint.h"
#include "engine/model/weight_names.h"
#include "prefetch/expert_store.h"
#include "prefetch/tensor_source.h"

namespace augur {

/// A tensor that a model needs.
struct WantedTensor {
  WeightRole role = WeightRole::kEmbedding;
  int layer = 0;   // of roles that a layer has
  int expert = 0;  // of roles that an expert has
  int64_t num_rows = 0;
  int64_t num_cols = 0;  // 0: a vector of num_rows values

  std::vector<int64_t> shape() const;
};

/// Calls `visit` for every tensor of the model, layer by layer, until it returns false.
void visit_wanted_tensors(const ModelConfig& config,
                          const std::function<bool(const WantedTensor&)>& visit);

/// What weights are counted under.
enum class WeightKind : uint8_t {
  kEmbedding,  // and the head, which is often the same tensor
  kAttention,
  kDenseMlp,
  kSharedExperts,
  kExperts,
  kRouters,
  kNorms,
};
inline constexpr size_t kNumWeightKinds = static_cast<size_t>(WeightKind::kNorms) + 1;
std::string_view name_of(WeightKind kind);  // "shared experts"
WeightKind kind_of(WeightRole role);

/// Sources by role; those the model lacks are not present.
class RoleSources {
 public:
  const TensorSource& operator[](WeightRole role) const {
    return sources_[static_cast<size_t>(role)];
  }
  TensorSource& operator[](WeightRole role) { return sources_[static_cast<size_t>(role)]; }

 private:
  std::array<TensorSource, kNumWeightRoles> sources_ = {};
};

struct LayerPlan {
  RoleSources sources;                // roles that a layer has
  std::vector<ExpertSource> experts;  // empty in a dense layer
};

/// File indexes are those of the checkpoint's files(). With tied embeddings the head's source is
/// the embedding's.
struct WeightPlan {
  RoleSources sources;  // kEmbedding, kLmHead, kFinalNorm
  std::vector<LayerPlan> layers;

  std::array<int64_t, kNumWeightKinds> stored_bytes = {};  // in the files, by WeightKind
  int64_t num_values = 0;                                  // parameters, tied ones once
  int64_t num_tensors = 0;
  int64_t num_rounded_f16 = 0;  // matrices that will be rounded to bf16
  int64_t num_rounded_f32 = 0;
  // Tensors of the checkpoint that the model does not use.
  int64_t num_draft_tensors = 0;  // of layers after the last: a draft layer, read past
  int64_t draft_bytes = 0;
  int64_t num_unused_tensors = 0;        // others
  std::vector<std::string> some_unused;  // the first few of those

  int64_t total_stored_bytes() const;
};

/// Throws ConfigError listing up to ten tensors that are missing, have another shape, or a dtype
/// other than BF16, F16 and F32.
WeightPlan plan_weights(const ModelConfig& config,
                        const NameMap& names,
                        const Checkpoint& checkpoint);

/// The plan of a model that no checkpoint holds: shapes without places. Offsets number the tensors.
WeightPlan shapes_only_plan(const ModelConfig& config);

/// The experts' sources by layer, as ExpertStore takes them.
std::vector<std::vector<ExpertSource>> expert_sources(const WeightPlan& plan);

}  // namespace augur
