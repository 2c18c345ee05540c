// generation_config.json: how a model's authors advise to sample from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "engine/model/hf_config.h"

namespace augur {

/// What the file leaves out stays absent: whoever samples has defaults of their own.
struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;
  bool do_sample = false;  // false: greedy, whatever the rest says
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int32_t> top_k;  // 0: all
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
};

/// Throws ConfigError for values out of range.
GenerationConfig read_generation_config(const HfConfig& config);

/// Of `folder`/generation_config.json; all absent when there is no such file.
GenerationConfig read_generation_config(const std::filesystem::path& folder);

}  // namespace augur
