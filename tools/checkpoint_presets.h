// Shapes of published models, as the config.json that makes them.
#pragma once

#include <span>
#include <string_view>

namespace augur {

struct CheckpointPreset {
  std::string_view name;  // "qwen3-30b-a3b"
  std::string_view config_json;
};

/// "tiny" is a few megabytes of GLM-4 shape with the vocabulary size of the demo model, so that
/// the demo model's tokenizer fits it.
std::span<const CheckpointPreset> checkpoint_presets();

}  // namespace augur
