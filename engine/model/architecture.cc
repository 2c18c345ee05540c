#include "engine/model/architecture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/architecture_fields.h"

namespace augur {

std::span<const Architecture> architectures() {
  static const std::array all = {
      glm4_moe_architecture(),
      llama_architecture(),
      qwen3_moe_architecture(),
  };
  return all;
}

const Architecture& find_architecture(const HfConfig& config) {
  std::string supported;
  const std::vector<std::string> named = config.texts("architectures");
  for (const Architecture& architecture : architectures()) {
    if (!named.empty() && named.front() == architecture.name) return architecture;
    supported += supported.empty() ? "" : ", ";
    supported += architecture.name;
  }
  config.refuse("architectures", "one of " + supported);
}

ModelDescription describe_model(const HfConfig& config, const GenerationConfig& generation) {
  ModelDescription model;
  model.architecture = &find_architecture(config);
  model.config = model.architecture->read(config);
  model.config.architecture = model.architecture->name;
  model.generation = generation;

  std::vector<int32_t>& eos = model.config.eos_token_ids;
  for (const int32_t id : generation.eos_token_ids) {
    if (std::find(eos.begin(), eos.end(), id) == eos.end()) eos.push_back(id);
  }
  if (model.config.bos_token_id < 0) {
    model.config.bos_token_id = generation.bos_token_id.value_or(-1);
  }
  check_model_config(model.config, config);
  return model;
}

ModelDescription read_model_description(const std::filesystem::path& folder) {
  return describe_model(HfConfig::read(folder / "config.json"), read_generation_config(folder));
}

}  // namespace augur
