// The parts of config.json that families share, read and checked once.
#pragma once

#include "configs/model_config.h"
#include "engine/model/hf_config.h"

namespace augur {

/// Ranges far beyond every published model, small enough that no product of two of them
/// overflows and that a damaged file cannot ask for a table of absurd size.
inline constexpr Range<int64_t> kLayerRange = {1, 1024};
inline constexpr Range<int64_t> kExpertRange = {1, 4096};
inline constexpr Range<int64_t> kIntermediateRange = {1, int64_t{1} << 20};

struct CommonDefaults {
  double partial_rotary_factor = 1;
  bool uses_sliding_window = true;  // when sliding_window is set and use_sliding_window is absent
};

/// Sizes, attention shape, rope and special tokens: what every decoder has. The layers are all
/// dense and the rest is at its defaults. Refuses what would change the maths unseen: an
/// activation other than silu, sliding windows, quantised weights.
ModelConfig read_common_fields(const HfConfig& config, const CommonDefaults& defaults = {});

/// `rope_parameters`, or the older `rope_theta` with `rope_scaling`.
RopeConfig read_rope(const HfConfig& config, int head_dim, double default_partial_rotary_factor);

/// What must hold between fields; the last step of reading. Throws ConfigError naming the key.
void check_model_config(const ModelConfig& model, const HfConfig& config);

}  // namespace augur
