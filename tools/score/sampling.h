// The sampling settings in effect: what the command line gives, else the model's own.
#pragma once

#include "engine/model/generation_config.h"
#include "engine/schedule/request.h"
#include "tools/score/options.h"

namespace augur::score {

/// Flags first, then the model's generation_config.json, then the settings that change nothing.
/// Without --temperature a model whose file does not say do_sample is asked for its likeliest
/// tokens (temperature 0).
SamplingParams make_sampling(const SamplingFlags& flags, const GenerationConfig& model);

}  // namespace augur::score
