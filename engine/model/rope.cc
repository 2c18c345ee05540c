#include "engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "kernels/require.h"

namespace augur {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// Low frequencies turn `factor` times slower, high ones as before, those between in proportion to
// how often they turn within the original context.
double llama3_frequency(const RopeConfig& rope, double frequency) {
  const double num_turns =
      static_cast<double>(rope.original_max_position_embeddings) * frequency / kTwoPi;
  if (num_turns < rope.low_freq_factor) return frequency / rope.factor;
  if (num_turns > rope.high_freq_factor) return frequency;
  const double share =
      (num_turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - share) * frequency / rope.factor + share * frequency;
}

// The pair (as a real number) that turns `num_turns` times within the original context.
double yarn_pair_of(const RopeConfig& rope, double num_turns) {
  return rope.rotary_dim *
         std::log(static_cast<double>(rope.original_max_position_embeddings) /
                  (num_turns * kTwoPi)) /
         (2 * std::log(rope.theta));
}

// Pairs up to ramp_begin turn as before, from ramp_end on `factor` times slower.
struct YarnRamp {
  double begin = 0;
  double end = 0;
};

YarnRamp yarn_ramp(const RopeConfig& rope) {
  YarnRamp ramp = {yarn_pair_of(rope, rope.beta_fast), yarn_pair_of(rope, rope.beta_slow)};
  if (rope.rounds_ramp_ends) ramp = {std::floor(ramp.begin), std::ceil(ramp.end)};
  // The upper limit is rotary_dim - 1, not the last pair: so does the reference code.
  ramp = {std::max(ramp.begin, 0.0), std::min(ramp.end, rope.rotary_dim - 1.0)};
  if (ramp.begin == ramp.end) ramp.end += 0.001;  // a step instead of a division by zero
  return ramp;
}

}  // namespace

std::vector<double> rope_frequencies(const RopeConfig& rope) {
  AUGUR_REQUIRE(rope.rotary_dim >= 2 && rope.rotary_dim % 2 == 0,
                "rotary_dim is " + std::to_string(rope.rotary_dim));
  const YarnRamp ramp = rope.scaling == RopeScaling::kYarn ? yarn_ramp(rope) : YarnRamp();
  std::vector<double> frequencies(static_cast<size_t>(rope.rotary_dim / 2));
  for (size_t pair = 0; pair < frequencies.size(); ++pair) {
    const double plain = std::pow(rope.theta, -2.0 * static_cast<double>(pair) / rope.rotary_dim);
    switch (rope.scaling) {
      case RopeScaling::kNone:
        frequencies[pair] = plain;
        break;
      case RopeScaling::kLinear:
        frequencies[pair] = plain / rope.factor;
        break;
      case RopeScaling::kLlama3:
        frequencies[pair] = llama3_frequency(rope, plain);
        break;
      case RopeScaling::kYarn: {
        const double slow_share = std::clamp(
            (static_cast<double>(pair) - ramp.begin) / (ramp.end - ramp.begin), 0.0, 1.0);
        frequencies[pair] = slow_share * plain / rope.factor + (1 - slow_share) * plain;
        break;
      }
    }
  }
  return frequencies;
}

double rope_attention_factor(const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::kYarn) return 1;
  if (rope.attention_factor > 0) return rope.attention_factor;
  return rope.factor <= 1 ? 1 : 0.1 * std::log(rope.factor) + 1;
}

RopeTableData make_rope_table(const RopeConfig& rope, int64_t max_positions) {
  AUGUR_REQUIRE(max_positions >= 0, "max_positions is " + std::to_string(max_positions));
  const std::vector<double> frequencies = rope_frequencies(rope);
  const double attention_factor = rope_attention_factor(rope);
  RopeTableData table;
  table.max_positions = max_positions;
  table.rotary_dim = rope.rotary_dim;
  const size_t num_values = static_cast<size_t>(max_positions) * frequencies.size();
  table.cos.reserve(num_values);
  table.sin.reserve(num_values);
  for (int64_t position = 0; position < max_positions; ++position) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(position) * frequency;
      table.cos.push_back(static_cast<float>(std::cos(angle) * attention_factor));
      table.sin.push_back(static_cast<float>(std::sin(angle) * attention_factor));
    }
  }
  return table;
}

}  // namespace augur
