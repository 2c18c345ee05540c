#include "engine/model/architecture_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

namespace augur {
namespace {

constexpr Range<int64_t> kHiddenRange = {1, int64_t{1} << 17};
constexpr Range<int64_t> kVocabRange = {1, int64_t{1} << 24};
constexpr Range<int64_t> kPositionRange = {1, int64_t{1} << 26};
constexpr Range<int64_t> kHeadRange = {1, 4096};
constexpr Range<int64_t> kHeadDimRange = {2, 1024};
constexpr Range<double> kFactorRange = {1, 100'000};

void refuse_what_is_not_computed(const HfConfig& config, const CommonDefaults& defaults) {
  if (config.has("quantization_config")) {
    config.refuse("quantization_config", "none, with weights in BF16, F16 or F32");
  }
  if (config.text_or("hidden_act", "silu") != "silu") config.refuse("hidden_act", "'silu'");
  if (config.has("sliding_window") &&
      config.boolean_or("use_sliding_window", defaults.uses_sliding_window)) {
    config.refuse("sliding_window", "null, or use_sliding_window false");
  }
  for (const std::string& type : config.texts("layer_types")) {
    if (type != "full_attention") config.refuse("layer_types", "'full_attention' for every layer");
  }
}

AttentionConfig read_attention(const HfConfig& config, int64_t hidden_size) {
  AttentionConfig attention;
  const int64_t num_heads = config.integer("num_attention_heads", kHeadRange);
  const int64_t num_kv_heads =
      config.integer_or("num_key_value_heads", num_heads, {1, kHeadRange.max});
  if (num_heads % num_kv_heads != 0) {
    config.refuse("num_key_value_heads",
                  fmt::format("a number that divides the {} attention heads", num_heads));
  }
  int64_t head_dim = 0;
  if (config.has("head_dim")) {
    head_dim = config.integer("head_dim", kHeadDimRange);
  } else if (hidden_size % num_heads == 0) {
    head_dim = hidden_size / num_heads;
  }
  if (head_dim % 2 != 0 || head_dim < kHeadDimRange.min || head_dim > kHeadDimRange.max) {
    config.refuse("head_dim",
                  fmt::format("an even number from {} to {}, or hidden_size {} and "
                              "num_attention_heads {} whose quotient is one",
                              kHeadDimRange.min, kHeadDimRange.max, hidden_size, num_heads));
  }
  attention.num_heads = static_cast<int>(num_heads);
  attention.num_kv_heads = static_cast<int>(num_kv_heads);
  attention.head_dim = static_cast<int>(head_dim);
  return attention;
}

// The factor by which yarn scales attention scores, Peng et al. 2023, arXiv:2309.00071, eq. 22.
double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

void read_llama3(const HfConfig& scaling, RopeConfig& rope) {
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = scaling.number("factor", kFactorRange);
  rope.low_freq_factor = scaling.number("low_freq_factor", {1e-3, 1e6});
  rope.high_freq_factor = scaling.number("high_freq_factor", {1e-3, 1e6});
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    scaling.refuse("high_freq_factor",
                   fmt::format("more than low_freq_factor {}", rope.low_freq_factor));
  }
}

void read_yarn(const HfConfig& scaling, int64_t max_positions, RopeConfig& rope) {
  rope.scaling = RopeScaling::kYarn;
  const double implied =
      std::max(1.0, static_cast<double>(max_positions) /
                        static_cast<double>(rope.original_max_position_embeddings));
  rope.factor = scaling.number_or("factor", implied, kFactorRange);
  rope.beta_fast = scaling.number_or("beta_fast", rope.beta_fast, {1e-3, 1e6});
  rope.beta_slow = scaling.number_or("beta_slow", rope.beta_slow, {1e-3, 1e6});
  if (rope.beta_fast < rope.beta_slow) {
    scaling.refuse("beta_fast", fmt::format("at least beta_slow {}", rope.beta_slow));
  }
  rope.rounds_ramp_ends = scaling.boolean_or("truncate", true);
  const double mscale = scaling.number_or("mscale", 0, {0, 100});
  const double mscale_all_dim = scaling.number_or("mscale_all_dim", 0, {0, 100});
  const bool has_both = mscale > 0 && mscale_all_dim > 0;
  const double usual =
      has_both ? yarn_scale(rope.factor, mscale) / yarn_scale(rope.factor, mscale_all_dim)
               : yarn_scale(rope.factor, 1);
  rope.attention_factor = scaling.number_or("attention_factor", usual, {1e-3, 1e3});
}

int64_t original_positions(const HfConfig& config, const HfConfig& scaling) {
  constexpr std::string_view kKey = "original_max_position_embeddings";
  // Where a file has the key at both levels, the outer one counts, as in transformers 5.
  if (config.has(kKey)) return config.integer(kKey, kPositionRange);
  if (scaling.has(kKey)) return scaling.integer(kKey, kPositionRange);
  return config.integer("max_position_embeddings", kPositionRange);
}

}  // namespace

RopeConfig read_rope(const HfConfig& config, int head_dim, double default_partial_rotary_factor) {
  std::optional<HfConfig> scaling = config.object("rope_scaling");
  if (!scaling || scaling->is_empty()) scaling = config.object("rope_parameters");
  const auto holder = [&](std::string_view key) -> const HfConfig& {
    return scaling && scaling->has(key) ? *scaling : config;
  };

  RopeConfig rope;
  rope.theta = holder("rope_theta").number_or("rope_theta", 10'000, {2, 1e15});
  const HfConfig& partial_holder = holder("partial_rotary_factor");
  const double partial =
      partial_holder.number_or("partial_rotary_factor", default_partial_rotary_factor, {1e-3, 1});
  rope.rotary_dim = static_cast<int>(head_dim * partial);
  if (rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0) {
    partial_holder.refuse("partial_rotary_factor",
                          fmt::format("a share of head_dim {} that is even", head_dim));
  }
  if (!scaling) return rope;

  for (const std::string_view layer_type : {"full_attention", "sliding_attention"}) {
    if (scaling->has(layer_type)) scaling->refuse(layer_type, "one setting for all layers");
  }
  const std::string_view type_key = scaling->present_of({"rope_type", "type"});
  const std::string type = scaling->text_or(type_key, "default");
  rope.original_max_position_embeddings = original_positions(config, *scaling);
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor = scaling->number("factor", kFactorRange);
  } else if (type == "llama3") {
    read_llama3(*scaling, rope);
  } else if (type == "yarn") {
    read_yarn(*scaling, config.integer("max_position_embeddings", kPositionRange), rope);
  } else if (type != "default") {
    scaling->refuse(type_key, "'default', 'linear', 'llama3' or 'yarn'");
  }
  return rope;
}

ModelConfig read_common_fields(const HfConfig& config, const CommonDefaults& defaults) {
  refuse_what_is_not_computed(config, defaults);
  ModelConfig model;
  model.hidden_size = config.integer("hidden_size", kHiddenRange);
  model.vocab_size = config.integer("vocab_size", kVocabRange);
  model.max_position_embeddings = config.integer("max_position_embeddings", kPositionRange);
  model.dense_intermediate_size = config.integer("intermediate_size", kIntermediateRange);
  model.rms_norm_eps = static_cast<float>(config.number("rms_norm_eps", {1e-30, 0.1}));
  model.tie_word_embeddings = config.boolean_or("tie_word_embeddings", false);
  model.attention = read_attention(config, model.hidden_size);
  model.rope = read_rope(config, model.attention.head_dim, defaults.partial_rotary_factor);
  model.layers.assign(static_cast<size_t>(config.integer("num_hidden_layers", kLayerRange)),
                      LayerKind::kDense);
  const Range<int64_t> token_ids = {0, model.vocab_size - 1};
  for (const int64_t id : config.integers("eos_token_id", token_ids)) {
    model.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  model.bos_token_id = static_cast<int32_t>(config.integer_or("bos_token_id", -1, token_ids));
  return model;
}

void check_model_config(const ModelConfig& model, const HfConfig& config) {
  for (const int32_t id : model.eos_token_ids) {
    if (id < 0 || id >= model.vocab_size) {
      config.refuse("eos_token_id", fmt::format("token ids below vocab_size {}, here and in "
                                                "generation_config.json",
                                                model.vocab_size));
    }
  }
  if (model.bos_token_id >= model.vocab_size) {
    config.refuse("bos_token_id", fmt::format("a token id below vocab_size {}, here and in "
                                              "generation_config.json",
                                              model.vocab_size));
  }
  const MoeConfig& moe = model.moe;
  if (moe.num_experts == 0) return;
  if (moe.top_k > moe.num_experts) {
    config.refuse("num_experts_per_tok", fmt::format("at most the {} experts", moe.num_experts));
  }
  if (moe.num_experts % moe.num_groups != 0) {
    config.refuse("n_group", fmt::format("a number that divides the {} experts", moe.num_experts));
  }
  if (moe.top_groups > moe.num_groups) {
    config.refuse("topk_group", fmt::format("at most the {} groups", moe.num_groups));
  }
  const int group_size = moe.num_experts / moe.num_groups;
  if (moe.num_groups > 1 && group_size < 2) {
    config.refuse("n_group", fmt::format("groups of two experts or more out of {}: a group is "
                                         "judged by its two best",
                                         moe.num_experts));
  }
  if (moe.top_k > moe.top_groups * group_size) {
    config.refuse("num_experts_per_tok", fmt::format("at most the {} experts of {} groups",
                                                     moe.top_groups * group_size, moe.top_groups));
  }
}

}  // namespace augur
