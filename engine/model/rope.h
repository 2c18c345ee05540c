// The cosines and sines of rotary position embedding, with every scaling of context folded in.
#pragma once

#include <cstdint>
#include <vector>

#include "configs/model_config.h"

namespace augur {

/// cos and sin are [max_positions, rotary_dim / 2], row-major.
struct RopeTableData {
  std::vector<float> cos;
  std::vector<float> sin;
  int64_t max_positions = 0;
  int rotary_dim = 0;

  int64_t num_bytes() const { return static_cast<int64_t>((cos.size() + sin.size()) * 4); }
};

/// The angle per position of each pair, [rotary_dim / 2].
/// Sources: Su et al. 2021, arXiv:2104.09864, eq. 15; linear: Chen et al. 2023, arXiv:2306.15595;
/// llama3: the Llama 3.1 model card's reference code; yarn: Peng et al. 2023, arXiv:2309.00071,
/// section 3.2.
std::vector<double> rope_frequencies(const RopeConfig& rope);

/// What cos and sin are multiplied by: 1, but for yarn.
double rope_attention_factor(const RopeConfig& rope);

/// Angles are computed in double and rounded once. Requires max_positions >= 0 and a rotary_dim
/// that is even.
RopeTableData make_rope_table(const RopeConfig& rope, int64_t max_positions);

}  // namespace augur
