#include "engine/model/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>

#include "configs/config_error.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

namespace json = boost::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::filesystem::path data(std::string_view name) {
  return std::filesystem::path(AUGUR_SOURCE_DIR) / "tests/model/data" / name;
}

/// A reference model's config with some keys changed; a key whose text is "absent" is removed.
class Edited {
 public:
  explicit Edited(std::string_view model)
      : config_(json::parse(read_whole_file(data(model) / "config.json")).as_object()) {}
  Edited& set(std::string_view key, std::string_view value) {
    if (value == "absent") {
      config_.erase(key);
    } else {
      config_[key] = json::parse(value);
    }
    return *this;
  }
  ModelConfig read(const GenerationConfig& generation = {}) const {
    return describe_model(HfConfig::parse(json::serialize(config_), "config.json"), generation)
        .config;
  }
  std::string refusal() const {
    return message_of<ConfigError>([this] { read(); });
  }

 private:
  json::object config_;
};

TEST(Architecture, ReadsGlm4Moe) {
  const ModelDescription model = read_model_description(data("glm4_moe"));
  const ModelConfig& config = model.config;
  EXPECT_EQ(model.architecture->name, "Glm4MoeForCausalLM");
  EXPECT_EQ(config.architecture, "Glm4MoeForCausalLM");
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.vocab_size, 160);
  EXPECT_EQ(config.max_position_embeddings, 256);
  EXPECT_EQ(config.dense_intermediate_size, 96);
  EXPECT_FLOAT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_EQ(config.attention.num_heads, 6);
  EXPECT_EQ(config.attention.num_kv_heads, 2);
  EXPECT_EQ(config.attention.head_dim, 16);
  EXPECT_TRUE(config.attention.has_qkv_bias);
  EXPECT_FALSE(config.attention.has_output_bias);
  EXPECT_TRUE(config.attention.has_qk_norm);
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.rope.rotary_dim, 8);
  EXPECT_EQ(config.rope.scaling, RopeScaling::kNone);
  EXPECT_FALSE(config.rope.is_interleaved);
  EXPECT_EQ(config.moe.num_experts, 8);
  EXPECT_EQ(config.moe.top_k, 2);
  EXPECT_EQ(config.moe.intermediate_size, 32);
  EXPECT_EQ(config.moe.shared_intermediate_size, 32);
  EXPECT_EQ(config.moe.scoring, ExpertScoring::kSigmoid);
  EXPECT_TRUE(config.moe.has_correction_bias);
  EXPECT_TRUE(config.moe.normalise_top_k);
  EXPECT_FLOAT_EQ(config.moe.routed_scaling_factor, 2.5f);
  EXPECT_THAT(config.layers, ElementsAre(LayerKind::kDense, LayerKind::kMoe, LayerKind::kMoe));
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST(Architecture, ReadsQwen3Moe) {
  const ModelConfig config = read_model_description(data("qwen3_moe")).config;
  EXPECT_TRUE(config.attention.has_qk_norm);
  EXPECT_FALSE(config.attention.has_qkv_bias);
  EXPECT_EQ(config.attention.head_dim, 32);
  EXPECT_EQ(config.rope.rotary_dim, 32);
  EXPECT_EQ(config.moe.scoring, ExpertScoring::kSoftmax);
  EXPECT_EQ(config.moe.top_k, 3);
  EXPECT_EQ(config.moe.intermediate_size, 48);
  EXPECT_EQ(config.moe.shared_intermediate_size, 0);
  EXPECT_FALSE(config.moe.has_correction_bias);
  EXPECT_TRUE(config.moe.normalise_top_k);
  EXPECT_EQ(config.moe.routed_scaling_factor, 1);
  EXPECT_THAT(config.layers, ElementsAre(LayerKind::kMoe, LayerKind::kDense, LayerKind::kMoe));
}

TEST(Architecture, ReadsLlama) {
  const ModelConfig config = read_model_description(data("llama")).config;
  EXPECT_EQ(config.attention.head_dim, 16);  // 64 / 4
  EXPECT_EQ(config.moe.num_experts, 0);
  EXPECT_THAT(config.layers, ElementsAre(LayerKind::kDense, LayerKind::kDense));
  EXPECT_EQ(config.rope.theta, 5e5);
  EXPECT_EQ(config.rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(config.rope.factor, 8);
  EXPECT_EQ(config.rope.low_freq_factor, 1);
  EXPECT_EQ(config.rope.high_freq_factor, 4);
  EXPECT_EQ(config.rope.original_max_position_embeddings, 64);
}

TEST(Architecture, ReadsTheDemoModel) {
  const ModelDescription model =
      read_model_description(std::filesystem::path(AUGUR_SOURCE_DIR) / "models/tiny-glm4-moe");
  EXPECT_EQ(model.config.num_layers(), 7);
  EXPECT_TRUE(model.config.tie_word_embeddings);
  EXPECT_EQ(model.config.moe.num_experts, 32);
  EXPECT_THAT(model.config.eos_token_ids, ElementsAre(8182, 8189, 8191));
  EXPECT_TRUE(model.generation.do_sample);
  EXPECT_EQ(model.generation.temperature, 0.7);
}

TEST(Architecture, Glm4MoeFallsBackToItsFamilysDefaults) {
  const ModelConfig config = Edited("glm4_moe")
                                 .set("partial_rotary_factor", "absent")
                                 .set("use_qk_norm", "absent")
                                 .set("attention_bias", "absent")
                                 .set("first_k_dense_replace", "absent")
                                 .set("n_shared_experts", "2")
                                 .set("norm_topk_prob", "absent")
                                 .set("routed_scaling_factor", "absent")
                                 .read();
  EXPECT_EQ(config.rope.rotary_dim, 8);
  EXPECT_FALSE(config.attention.has_qk_norm);
  EXPECT_FALSE(config.attention.has_qkv_bias);
  EXPECT_EQ(config.layers[0], LayerKind::kDense);
  EXPECT_EQ(config.moe.shared_intermediate_size, 64);
  EXPECT_TRUE(config.moe.normalise_top_k);
  EXPECT_EQ(config.moe.routed_scaling_factor, 1);
  EXPECT_EQ(Edited("glm4_moe").set("n_shared_experts", "0").read().moe.shared_intermediate_size, 0);
}

TEST(Architecture, Qwen3MoePlacesItsDenseLayers) {
  const ModelConfig every_second = Edited("qwen3_moe")
                                       .set("num_hidden_layers", "5")
                                       .set("decoder_sparse_step", "2")
                                       .set("mlp_only_layers", "[3]")
                                       .read();
  EXPECT_THAT(every_second.layers,
              ElementsAre(LayerKind::kDense, LayerKind::kMoe, LayerKind::kDense, LayerKind::kDense,
                          LayerKind::kDense));
  EXPECT_FALSE(Edited("qwen3_moe").set("norm_topk_prob", "absent").read().moe.normalise_top_k);
  // Newer files call it so.
  EXPECT_EQ(Edited("qwen3_moe")
                .set("num_experts", "absent")
                .set("num_local_experts", "8")
                .read()
                .moe.num_experts,
            8);
}

TEST(Architecture, AttentionBiasReachesTheOutputWhereTheFamilySaysSo) {
  EXPECT_TRUE(Edited("llama").set("attention_bias", "true").read().attention.has_output_bias);
  EXPECT_TRUE(Edited("qwen3_moe").set("attention_bias", "true").read().attention.has_output_bias);
  EXPECT_FALSE(Edited("glm4_moe").read().attention.has_output_bias);
}

TEST(Architecture, JoinsTheTokensThatEndAText) {
  GenerationConfig generation;
  generation.eos_token_ids = {7, 2, 9};
  generation.bos_token_id = 5;
  const ModelConfig config = Edited("llama").set("eos_token_id", "[2, 3]").read(generation);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2, 3, 7, 9));
  EXPECT_EQ(config.bos_token_id, 1);
  EXPECT_EQ(Edited("llama").set("bos_token_id", "null").read(generation).bos_token_id, 5);
  EXPECT_EQ(Edited("llama").set("bos_token_id", "null").read().bos_token_id, -1);
  EXPECT_TRUE(Edited("llama").set("eos_token_id", "null").read().eos_token_ids.empty());
}

TEST(Architecture, RefusesEosTokensBeyondTheVocabulary) {
  GenerationConfig generation;
  generation.eos_token_ids = {160};
  EXPECT_THAT(message_of<ConfigError>([&] { Edited("llama").read(generation); }),
              HasSubstr("below vocab_size 160"));
  EXPECT_THAT(Edited("llama").set("eos_token_id", "160").refusal(),
              HasSubstr("eos_token_id: found '160'"));
}

TEST(Rope, OldAndNewFormsReadTheSame) {
  const ModelConfig old_form = Edited("llama").read();
  const ModelConfig new_form =
      Edited("llama")
          .set("rope_theta", "absent")
          .set("rope_scaling", "absent")
          .set("rope_parameters",
               R"({"rope_theta":500000.0,"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
                   "high_freq_factor":4.0,"original_max_position_embeddings":64})")
          .read();
  EXPECT_EQ(new_form.rope.theta, old_form.rope.theta);
  EXPECT_EQ(new_form.rope.scaling, old_form.rope.scaling);
  EXPECT_EQ(new_form.rope.factor, old_form.rope.factor);
  EXPECT_EQ(new_form.rope.rotary_dim, old_form.rope.rotary_dim);
  EXPECT_EQ(new_form.rope.original_max_position_embeddings,
            old_form.rope.original_max_position_embeddings);

  const ModelConfig partial =
      Edited("glm4_moe")
          .set("partial_rotary_factor", "absent")
          .set("rope_theta", "absent")
          .set("rope_parameters",
               R"({"rope_type":"default","rope_theta":7000,"partial_rotary_factor":0.25})")
          .read();
  EXPECT_EQ(partial.rope.theta, 7000);
  EXPECT_EQ(partial.rope.rotary_dim, 4);
}

TEST(Rope, ReadsLinearAndDefault) {
  const ModelConfig linear =
      Edited("llama").set("rope_scaling", R"({"type":"linear","factor":2.5})").read();
  EXPECT_EQ(linear.rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope.factor, 2.5);
  for (const char* none : {"null", "{}", R"({"rope_type":"default"})", R"({"type":"default"})"}) {
    EXPECT_EQ(Edited("llama").set("rope_scaling", none).read().rope.scaling, RopeScaling::kNone)
        << none;
  }
  EXPECT_EQ(Edited("llama").set("rope_theta", "absent").read().rope.theta, 10'000);
}

TEST(Rope, ReadsYarn) {
  const ModelConfig plain =
      Edited("llama")
          .set("rope_scaling",
               R"({"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":64})")
          .read();
  EXPECT_EQ(plain.rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(plain.rope.beta_fast, 32);
  EXPECT_EQ(plain.rope.beta_slow, 1);
  EXPECT_TRUE(plain.rope.rounds_ramp_ends);
  EXPECT_NEAR(plain.rope.attention_factor, 0.1 * std::log(4.0) + 1, 1e-15);

  const ModelConfig scaled =
      Edited("llama")
          .set("rope_scaling",
               R"({"type":"yarn","factor":40,"original_max_position_embeddings":64,"mscale":1.0,
                   "mscale_all_dim":0.707,"beta_fast":16,"beta_slow":2,"truncate":false})")
          .read();
  EXPECT_NEAR(scaled.rope.attention_factor, 1.085726399256135, 1e-12);  // data/rope_values.py
  EXPECT_EQ(scaled.rope.beta_fast, 16);
  EXPECT_EQ(scaled.rope.beta_slow, 2);
  EXPECT_FALSE(scaled.rope.rounds_ramp_ends);

  const ModelConfig given =
      Edited("llama")
          .set("rope_scaling", R"({"type":"yarn","factor":null,"attention_factor":1.25,
                                   "original_max_position_embeddings":64})")
          .read();
  EXPECT_EQ(given.rope.attention_factor, 1.25);
  EXPECT_EQ(given.rope.factor, 4);  // 256 / 64
}

TEST(Rope, TheOriginalContextDefaultsToTheModels) {
  const char* scaling = R"({"type":"yarn","factor":2.0})";
  EXPECT_EQ(
      Edited("llama").set("rope_scaling", scaling).read().rope.original_max_position_embeddings,
      256);
  EXPECT_EQ(Edited("llama")
                .set("rope_scaling", scaling)
                .set("original_max_position_embeddings", "128")
                .read()
                .rope.original_max_position_embeddings,
            128);
}

TEST(Architecture, AcceptsASlidingWindowThatIsOff) {
  EXPECT_NO_THROW(Edited("qwen3_moe").set("sliding_window", "4096").read());
  EXPECT_NO_THROW(
      Edited("llama").set("sliding_window", "4096").set("use_sliding_window", "false").read());
  EXPECT_NO_THROW(
      Edited("qwen3_moe").set("sliding_window", "null").set("use_sliding_window", "true").read());
  EXPECT_NO_THROW(
      Edited("llama").set("layer_types", R"(["full_attention","full_attention"])").read());
}

TEST(Architecture, NamesTheSupportedOnesWhenItRefuses) {
  EXPECT_THAT(Edited("llama").set("architectures", R"(["EvilForCausalLM"])").refusal(),
              AllOf(HasSubstr(R"(found '["EvilForCausalLM"]')"), HasSubstr("Glm4MoeForCausalLM"),
                    HasSubstr("LlamaForCausalLM"), HasSubstr("Qwen3MoeForCausalLM")));
  EXPECT_THAT(Edited("llama").set("architectures", "absent").refusal(), HasSubstr("is missing"));
  EXPECT_THAT(Edited("llama").set("architectures", "[]").refusal(), HasSubstr("found '[]'"));
}

TEST(Architecture, IgnoresCodeThatAConfigPointsTo) {
  EXPECT_NO_THROW(
      Edited("llama").set("auto_map", R"({"AutoModelForCausalLM":"evil.Model"})").read());
}

struct BadConfig {
  const char* model;
  const char* key;
  const char* value;
  const char* complaint;
};

class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefused) {
  const auto& [model, key, value, complaint] = GetParam();
  EXPECT_THAT(Edited(model).set(key, value).refusal(),
              AllOf(HasSubstr("config.json: "), HasSubstr(complaint), HasSubstr("accepted: ")));
}

INSTANTIATE_TEST_SUITE_P(
    Missing,
    BadConfigTest,
    ::testing::Values(
        BadConfig{"llama", "hidden_size", "absent", "hidden_size: is missing"},
        BadConfig{"llama", "num_hidden_layers", "absent", "num_hidden_layers: is missing"},
        BadConfig{"llama", "num_attention_heads", "null", "num_attention_heads: is missing"},
        BadConfig{"llama", "vocab_size", "absent", "vocab_size: is missing"},
        BadConfig{"llama", "intermediate_size", "absent", "intermediate_size: is missing"},
        BadConfig{"llama", "rms_norm_eps", "absent", "rms_norm_eps: is missing"},
        BadConfig{"llama", "max_position_embeddings", "absent", "is missing"},
        BadConfig{"glm4_moe", "n_routed_experts", "absent", "n_routed_experts: is missing"},
        BadConfig{"glm4_moe", "moe_intermediate_size", "absent", "is missing"},
        BadConfig{"qwen3_moe", "num_experts_per_tok", "absent", "is missing"},
        BadConfig{"llama", "rope_scaling", R"({"type":"linear"})",
                  "rope_scaling.factor: is missing"},
        BadConfig{"llama", "rope_scaling", R"({"type":"llama3","factor":8})", "is missing"}));

INSTANTIATE_TEST_SUITE_P(
    Absurd,
    BadConfigTest,
    ::testing::Values(
        BadConfig{"llama", "hidden_size", "-64", "found '-64'"},
        BadConfig{"llama", "hidden_size", "0", "found '0'"},
        BadConfig{"llama", "hidden_size", "1000000000000", "found '1000000000000'"},
        BadConfig{"llama", "hidden_size", "64.5", "found '64.5'"},
        BadConfig{"llama", "hidden_size", "\"64\"", "found '\"64\"'"},
        BadConfig{"llama", "num_hidden_layers", "-1", "found '-1'"},
        BadConfig{"llama", "num_hidden_layers", "1000000", "from 1 to 1024"},
        BadConfig{"llama", "num_attention_heads", "0", "found '0'"},
        BadConfig{"llama", "num_attention_heads", "1e9", "num_attention_heads"},
        BadConfig{"llama", "num_attention_heads", "6", "head_dim: is missing"},
        BadConfig{"llama", "num_key_value_heads", "3", "that divides the 4 attention heads"},
        BadConfig{"llama", "num_key_value_heads", "8", "that divides the 4 attention heads"},
        BadConfig{"llama", "num_key_value_heads", "-2", "found '-2'"},
        BadConfig{"llama", "head_dim", "15", "an even number"},
        BadConfig{"llama", "head_dim", "100000", "found '100000'"},
        BadConfig{"llama", "vocab_size", "-160", "found '-160'"},
        BadConfig{"llama", "vocab_size", "9223372036854775807", "vocab_size"},
        BadConfig{"llama", "max_position_embeddings", "99999999999", "max_position_embeddings"},
        BadConfig{"llama", "intermediate_size", "-96", "found '-96'"},
        BadConfig{"llama", "rms_norm_eps", "-1e-5", "rms_norm_eps"},
        BadConfig{"llama", "rms_norm_eps", "0", "rms_norm_eps"},
        BadConfig{"llama", "rms_norm_eps", "3", "rms_norm_eps"},
        BadConfig{"llama", "rope_theta", "-1", "rope_theta"},
        BadConfig{"llama", "rope_theta", "0", "rope_theta"},
        BadConfig{"llama", "tie_word_embeddings", "1", "true or false"},
        BadConfig{"llama", "bos_token_id", "-1", "bos_token_id"},
        BadConfig{"llama", "eos_token_id", "[1,-2]", "eos_token_id"},
        BadConfig{"llama", "eos_token_id", "\"</s>\"", "eos_token_id"},
        BadConfig{"glm4_moe", "n_routed_experts", "100000", "from 1 to 4096"},
        BadConfig{"glm4_moe", "n_routed_experts", "-8", "found '-8'"},
        BadConfig{"glm4_moe", "num_experts_per_tok", "9", "at most the 8 experts"},
        BadConfig{"glm4_moe", "num_experts_per_tok", "0", "num_experts_per_tok"},
        BadConfig{"glm4_moe", "n_group", "3", "that divides the 8 experts"},
        BadConfig{"glm4_moe", "n_group", "8", "two experts or more"},
        BadConfig{"glm4_moe", "topk_group", "2", "at most the 1 groups"},
        BadConfig{"glm4_moe", "n_shared_experts", "-1", "n_shared_experts"},
        BadConfig{"glm4_moe", "first_k_dense_replace", "4", "from 0 to 3"},
        BadConfig{"glm4_moe", "routed_scaling_factor", "0", "routed_scaling_factor"},
        BadConfig{"glm4_moe", "partial_rotary_factor", "1.5", "partial_rotary_factor"},
        BadConfig{"glm4_moe", "partial_rotary_factor", "0.07", "that is even"},
        BadConfig{"glm4_moe", "partial_rotary_factor", "0.2", "that is even"},
        BadConfig{"qwen3_moe", "mlp_only_layers", "[3]", "from 0 to 2"},
        BadConfig{"qwen3_moe", "decoder_sparse_step", "0", "decoder_sparse_step"},
        BadConfig{"llama", "rope_scaling", R"({"type":"linear","factor":-2})", "factor"},
        BadConfig{"llama", "rope_scaling", R"({"type":"linear","factor":1e9})", "factor"},
        BadConfig{"llama", "rope_scaling", R"({"type":"yarn","factor":4,"beta_fast":0})",
                  "beta_fast"},
        BadConfig{"llama", "rope_scaling", R"({"type":"yarn","factor":4,"beta_fast":0.5})",
                  "at least beta_slow 1"},
        BadConfig{"llama", "rope_scaling",
                  R"({"type":"yarn","factor":4,"original_max_position_embeddings":0})",
                  "original_max_position_embeddings"},
        BadConfig{"llama", "rope_scaling",
                  R"({"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4})",
                  "more than low_freq_factor 4"}));

INSTANTIATE_TEST_SUITE_P(
    Unknown,
    BadConfigTest,
    ::testing::Values(
        BadConfig{"llama", "hidden_act", "\"gelu\"", "hidden_act: found '\"gelu\"'"},
        BadConfig{"llama", "mlp_bias", "true", "mlp_bias: found 'true'"},
        BadConfig{"llama", "rope_scaling", R"({"type":"dynamic","factor":2})",
                  "'default', 'linear', 'llama3' or 'yarn'"},
        BadConfig{"llama", "rope_scaling", R"({"rope_type":"longrope","factor":2})",
                  "rope_scaling.rope_type: found '\"longrope\"'"},
        BadConfig{"llama", "rope_scaling", R"({"full_attention":{"rope_type":"default"}})",
                  "one setting for all layers"},
        BadConfig{"llama", "rope_scaling", "8", "an object"},
        BadConfig{"llama", "sliding_window", "4096", "use_sliding_window false"},
        BadConfig{"llama", "layer_types", R"(["full_attention","sliding_attention"])",
                  "layer_types"},
        BadConfig{"glm4_moe", "quantization_config", R"({"quant_method":"fp8"})",
                  "BF16, F16 or F32"},
        BadConfig{"llama", "architectures", "\"LlamaForCausalLM\"", "a list of strings"}));

TEST(Architecture, GroupsMustHoldEnoughExperts) {
  EXPECT_THAT(Edited("glm4_moe").set("n_group", "4").set("num_experts_per_tok", "3").refusal(),
              HasSubstr("at most the 2 experts of 1 groups"));
  EXPECT_EQ(Edited("glm4_moe").set("n_group", "4").set("topk_group", "2").read().moe.top_groups, 2);
}

TEST(Architecture, ASlidingWindowInUseIsRefused) {
  EXPECT_THAT(
      Edited("qwen3_moe").set("sliding_window", "4096").set("use_sliding_window", "true").refusal(),
      HasSubstr("sliding_window: found '4096'"));
}

}  // namespace
}  // namespace augur
