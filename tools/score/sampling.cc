#include "tools/score/sampling.h"

namespace augur::score {
namespace {

/// The flag, else the model's value, else the default.
template <typename T, typename U>
T choose(const std::optional<T>& flag, const std::optional<U>& model, T otherwise) {
  if (flag) return *flag;
  return model ? static_cast<T>(*model) : otherwise;
}

}  // namespace

SamplingParams make_sampling(const SamplingFlags& flags, const GenerationConfig& model) {
  const SamplingParams defaults;
  SamplingParams params;
  params.temperature = model.do_sample
                           ? choose(flags.temperature, model.temperature, defaults.temperature)
                           : flags.temperature.value_or(0.0f);
  params.top_k = choose(flags.top_k, model.top_k, defaults.top_k);
  params.top_p = choose(flags.top_p, model.top_p, defaults.top_p);
  params.min_p = choose(flags.min_p, model.min_p, defaults.min_p);
  params.repetition_penalty =
      choose(flags.repetition_penalty, model.repetition_penalty, defaults.repetition_penalty);
  params.presence_penalty = flags.presence_penalty.value_or(defaults.presence_penalty);
  params.frequency_penalty = flags.frequency_penalty.value_or(defaults.frequency_penalty);
  params.max_tokens = flags.max_tokens;
  params.min_tokens = flags.min_tokens;
  params.seed = flags.seed;
  params.n = flags.n;
  params.stop = flags.stop;
  params.stop_token_ids = flags.stop_token_ids;
  params.logit_bias = flags.logit_bias;
  params.ignore_eos = flags.ignore_eos;
  params.include_stop_in_output = flags.include_stop;
  params.logprobs = flags.logprobs.value_or(defaults.logprobs);
  return params;
}

}  // namespace augur::score
