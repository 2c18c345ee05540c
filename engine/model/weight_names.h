// The weights a decoder is made of, and what a family of models calls them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace augur {

/// What a weight is for. Matrices are [outputs, inputs].
enum class WeightRole : uint8_t {
  // One of each in a model.
  kEmbedding,  // [vocab, hidden]
  kLmHead,     // [vocab, hidden]; the embedding when tied
  kFinalNorm,  // [hidden]
  // One of each in a layer.
  kInputNorm,          // [hidden]
  kPostAttentionNorm,  // [hidden]
  kQuery,              // [heads * head_dim, hidden]
  kKey,                // [kv_heads * head_dim, hidden]
  kValue,              // [kv_heads * head_dim, hidden]
  kOutput,             // [hidden, heads * head_dim]
  kQueryBias,          // [heads * head_dim]
  kKeyBias,            // [kv_heads * head_dim]
  kValueBias,          // [kv_heads * head_dim]
  kOutputBias,         // [hidden]
  kQueryNorm,          // [head_dim]
  kKeyNorm,            // [head_dim]
  // Of a dense layer.
  kGate,  // [intermediate, hidden]
  kUp,    // [intermediate, hidden]
  kDown,  // [hidden, intermediate]
  // Of a layer with experts.
  kRouter,          // [experts, hidden]
  kCorrectionBias,  // [experts]
  kSharedGate,      // [shared intermediate, hidden]
  kSharedUp,        // [shared intermediate, hidden]
  kSharedDown,      // [hidden, shared intermediate]
  // One of each in an expert.
  kExpertGate,  // [expert intermediate, hidden]
  kExpertUp,    // [expert intermediate, hidden]
  kExpertDown,  // [hidden, expert intermediate]
};
inline constexpr size_t kNumWeightRoles = static_cast<size_t>(WeightRole::kExpertDown) + 1;

/// A pattern per role, "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight". Patterns are
/// literals.
class NameMap {
 public:
  std::string_view& operator[](WeightRole role) { return patterns_[static_cast<size_t>(role)]; }
  std::string_view operator[](WeightRole role) const {
    return patterns_[static_cast<size_t>(role)];
  }

  /// The name with {layer} and {expert} filled in. Requires a pattern for the role.
  std::string name(WeightRole role, int layer = 0, int expert = 0) const;

 private:
  std::array<std::string_view, kNumWeightRoles> patterns_ = {};
};

/// What Llama and most families since call their weights; a family changes what it names
/// otherwise.
NameMap common_names();

}  // namespace augur
