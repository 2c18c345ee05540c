#include "engine/model/generation_config.h"

#include <limits>

namespace augur {
namespace {

constexpr Range<int64_t> kTokenIds = {0, std::numeric_limits<int32_t>::max()};

std::optional<double> optional_number(const HfConfig& config,
                                      std::string_view key,
                                      Range<double> range) {
  if (!config.has(key)) return std::nullopt;
  return config.number(key, range);
}

}  // namespace

GenerationConfig read_generation_config(const HfConfig& config) {
  GenerationConfig generation;
  for (const int64_t id : config.integers("eos_token_id", kTokenIds)) {
    generation.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  if (config.has("bos_token_id")) {
    generation.bos_token_id = static_cast<int32_t>(config.integer("bos_token_id", kTokenIds));
  }
  generation.do_sample = config.boolean_or("do_sample", false);
  generation.temperature = optional_number(config, "temperature", {0, 1000});
  generation.top_p = optional_number(config, "top_p", {1e-6, 1});
  if (config.has("top_k")) {
    // Some publish -1 where others write 0.
    const int64_t top_k = config.integer("top_k", {-1, std::numeric_limits<int32_t>::max()});
    generation.top_k = top_k < 0 ? 0 : static_cast<int32_t>(top_k);
  }
  generation.min_p = optional_number(config, "min_p", {0, 1});
  generation.repetition_penalty = optional_number(config, "repetition_penalty", {1e-3, 1000});
  return generation;
}

GenerationConfig read_generation_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "generation_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  return read_generation_config(HfConfig::read(path));
}

}  // namespace augur
