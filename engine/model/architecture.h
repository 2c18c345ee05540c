// The families of models Augur runs. A family is data: how to read its config.json, and its names.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>

#include "configs/model_config.h"
#include "engine/model/generation_config.h"
#include "engine/model/hf_config.h"
#include "engine/model/weight_names.h"

namespace augur {

struct Architecture {
  std::string_view name;  // as in config.json, "Glm4MoeForCausalLM"
  /// Throws ConfigError for missing, absurd or unsupported values.
  ModelConfig (*read)(const HfConfig& config);
  NameMap names;
};

// One file of architectures/ each; a new family is declared here and listed in architecture.cc.
Architecture glm4_moe_architecture();
Architecture llama_architecture();
Architecture qwen3_moe_architecture();

/// Every supported family.
std::span<const Architecture> architectures();

/// The family that config.json's `architectures` names. Throws ConfigError with the supported
/// list for others.
const Architecture& find_architecture(const HfConfig& config);

/// What a folder's config.json and generation_config.json say.
struct ModelDescription {
  const Architecture* architecture = nullptr;
  ModelConfig config;
  GenerationConfig generation;
};

/// Throws ConfigError for whatever cannot be run as described.
ModelDescription read_model_description(const std::filesystem::path& folder);

/// The same of files already parsed. The tokens that end a text are joined from both.
ModelDescription describe_model(const HfConfig& config, const GenerationConfig& generation);

}  // namespace augur
