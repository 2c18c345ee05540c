// Reads arbitrary text as config.json and as generation_config.json.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "configs/config_error.h"
#include "engine/model/architecture.h"
#include "engine/model/rope.h"
#include "engine/model/weight_plan.h"

namespace augur {
namespace {

// What is accepted must be a model that memory can be planned for.
void check(const ModelConfig& config) {
  if (config.layers.empty() || config.layers.size() > 1024) std::abort();
  if (config.attention.num_heads % config.attention.num_kv_heads != 0) std::abort();
  if (config.rope.rotary_dim % 2 != 0 || config.rope.rotary_dim > config.attention.head_dim) {
    std::abort();
  }
  if (config.moe.top_k > config.moe.num_experts) std::abort();
  for (const float value : make_rope_table(config.rope, 2).cos) {
    if (!(value >= -1e4f && value <= 1e4f)) std::abort();
  }
  int num_tensors = 0;
  visit_wanted_tensors(config, [&](const WantedTensor& tensor) {
    if (tensor.num_rows < 1 || tensor.num_cols < 0) std::abort();
    return ++num_tensors < 1000;
  });
}

}  // namespace
}  // namespace augur

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const augur::HfConfig config = augur::HfConfig::parse(text, "fuzz");
    augur::GenerationConfig generation;
    try {
      generation = augur::read_generation_config(config);
    } catch (const augur::ConfigError&) {
    }
    augur::check(augur::describe_model(config, generation).config);
  } catch (const augur::ConfigError&) {
  }
  return 0;
}
