#include "engine/model/weight_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "configs/config_error.h"
#include "engine/model/architecture.h"
#include "engine/model/safetensors_writer.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

fs::path data(std::string_view name) {
  return fs::path(AUGUR_SOURCE_DIR) / "tests/model/data" / name;
}

WeightPlan plan_folder(const fs::path& folder) {
  const ModelDescription model = read_model_description(folder);
  return plan_weights(model.config, model.architecture->names, Checkpoint::open(folder));
}

class ReferencePlan : public ::testing::TestWithParam<const char*> {};

TEST_P(ReferencePlan, UsesEveryTensorOnce) {
  const fs::path folder = data(GetParam());
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const WeightPlan plan = plan_folder(folder);
  int64_t stored_bytes = 0;
  for (const TensorInfo& tensor : checkpoint.tensors()) stored_bytes += tensor.num_bytes;
  EXPECT_EQ(plan.num_tensors, static_cast<int64_t>(checkpoint.tensors().size()));
  EXPECT_EQ(plan.total_stored_bytes(), stored_bytes);
  EXPECT_EQ(plan.num_unused_tensors, 0);
  EXPECT_EQ(plan.num_draft_tensors, 0);
  EXPECT_EQ(plan.num_rounded_f16 + plan.num_rounded_f32, 0);
}

INSTANTIATE_TEST_SUITE_P(WeightPlan,
                         ReferencePlan,
                         ::testing::Values("glm4_moe", "qwen3_moe", "llama"));

TEST(WeightPlan, FindsEachRole) {
  const fs::path folder = data("glm4_moe");
  const Checkpoint checkpoint = Checkpoint::open(folder);
  const WeightPlan plan = plan_folder(folder);
  ASSERT_EQ(plan.layers.size(), 3u);

  const auto expect_at = [&](const TensorSource& source, std::string_view name) {
    const TensorInfo* tensor = checkpoint.find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(source.offset, tensor->offset) << name;
    EXPECT_EQ(source.num_bytes(), tensor->num_bytes) << name;
  };
  expect_at(plan.sources[WeightRole::kLmHead], "lm_head.weight");
  expect_at(plan.layers[0].sources[WeightRole::kGate], "model.layers.0.mlp.gate_proj.weight");
  expect_at(plan.layers[2].sources[WeightRole::kKeyBias], "model.layers.2.self_attn.k_proj.bias");
  expect_at(plan.layers[1].sources[WeightRole::kQueryNorm],
            "model.layers.1.self_attn.q_norm.weight");
  expect_at(plan.layers[1].sources[WeightRole::kRouter], "model.layers.1.mlp.gate.weight");
  expect_at(plan.layers[1].sources[WeightRole::kSharedDown],
            "model.layers.1.mlp.shared_experts.down_proj.weight");
  ASSERT_EQ(plan.layers[2].experts.size(), 8u);
  expect_at(plan.layers[2].experts[5].up, "model.layers.2.mlp.experts.5.up_proj.weight");
  EXPECT_TRUE(plan.layers[0].experts.empty());
  EXPECT_FALSE(plan.layers[0].sources[WeightRole::kRouter].is_present());
  EXPECT_FALSE(plan.layers[1].sources[WeightRole::kGate].is_present());
  EXPECT_FALSE(plan.layers[1].sources[WeightRole::kOutputBias].is_present());
  EXPECT_EQ(plan.layers[1].sources[WeightRole::kCorrectionBias].format, WeightFormat::kF32);
  EXPECT_EQ(plan.layers[1].sources[WeightRole::kCorrectionBias].num_cols, 1);

  const auto bytes = [&](WeightKind kind) { return plan.stored_bytes[static_cast<size_t>(kind)]; };
  EXPECT_EQ(bytes(WeightKind::kEmbedding), 2 * 160 * 64 * 2);
  EXPECT_EQ(bytes(WeightKind::kExperts), 2 * 8 * 3 * 32 * 64 * 2);
  EXPECT_EQ(bytes(WeightKind::kDenseMlp), 3 * 96 * 64 * 2);
  EXPECT_EQ(bytes(WeightKind::kSharedExperts), 2 * 3 * 32 * 64 * 2);
  EXPECT_EQ(bytes(WeightKind::kRouters), 2 * (8 * 64 * 2 + 8 * 4));
  EXPECT_EQ(bytes(WeightKind::kNorms), (7 * 64 + 6 * 16) * 2);
  EXPECT_EQ(expert_sources(plan)[1].size(), 8u);
}

TEST(WeightPlan, ReadsPastTheDemoModelsDraftLayer) {
  const WeightPlan plan = plan_folder(fs::path(AUGUR_SOURCE_DIR) / "models/tiny-glm4-moe");
  EXPECT_EQ(plan.num_draft_tensors, 114);
  EXPECT_GT(plan.draft_bytes, 0);
  EXPECT_EQ(plan.num_unused_tensors, 0);
  EXPECT_EQ(plan.num_tensors, 788 - 114);
  // Tied: the head is the embedding, and counted once.
  EXPECT_EQ(plan.sources[WeightRole::kLmHead].offset, plan.sources[WeightRole::kEmbedding].offset);
  EXPECT_EQ(plan.stored_bytes[static_cast<size_t>(WeightKind::kEmbedding)], 8192 * 256 * 2);
}

/// A copy of the reference llama whose tensors a test may change.
class EditedWeights : public ::testing::Test {
 protected:
  EditedWeights() {
    const Checkpoint checkpoint = Checkpoint::open(data("llama"));
    for (const TensorInfo& tensor : checkpoint.tensors()) tensors_[tensor.name] = tensor;
    fs::copy_file(data("llama") / "config.json", folder_ / "config.json");
  }
  // The values do not matter for a plan: all zero.
  WeightPlan plan() {
    std::vector<TensorInfo> tensors;
    for (const auto& [name, tensor] : tensors_) tensors.push_back(tensor);
    SafetensorsWriter writer(folder_ / "model.safetensors", tensors);
    for (size_t i = 0; i < tensors.size(); ++i) {
      writer.write(i, std::string(writer.tensors()[i].num_bytes, '\0').data());
    }
    writer.finish();
    return plan_folder(folder_.path());
  }
  std::string refusal() {
    return message_of<ConfigError>([this] { plan(); });
  }

  TempFolder folder_;
  std::map<std::string, TensorInfo> tensors_;
};

TEST_F(EditedWeights, NamesAMissingTensor) {
  tensors_.erase("model.layers.1.self_attn.k_proj.weight");
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr(folder_.path().string()), HasSubstr("LlamaForCausalLM"),
                    HasSubstr("'model.layers.1.self_attn.k_proj.weight': is missing; expected: "
                              "[32, 64]")));
}

TEST_F(EditedWeights, NamesAWrongShape) {
  tensors_["model.norm.weight"].shape = {64, 1};
  tensors_["model.layers.0.mlp.up_proj.weight"].shape = {64, 96};
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("'model.norm.weight': found BF16 [64, 1]; expected: BF16, F16 or F32 "
                              "[64]"),
                    HasSubstr("model.safetensors: tensor 'model.layers.0.mlp.up_proj.weight': "
                              "found BF16 [64, 96]; expected: BF16, F16 or F32 [96, 64]")));
}

TEST_F(EditedWeights, NamesAWrongDtype) {
  tensors_["lm_head.weight"].dtype = TensorDType::kF8E4M3;
  tensors_["model.layers.0.input_layernorm.weight"].dtype = TensorDType::kI8;
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("'lm_head.weight': found F8_E4M3 [160, 64]; expected: BF16, F16 or "
                              "F32 [160, 64]"),
                    HasSubstr("found I8 [64]")));
}

TEST_F(EditedWeights, ShowsAtMostTenProblems) {
  tensors_ = {{"model.norm.weight", tensors_["model.norm.weight"]}};
  const std::string message = refusal();
  size_t num_shown = 0;
  for (size_t at = message.find("is missing"); at != std::string::npos;
       at = message.find("is missing", at + 1)) {
    ++num_shown;
  }
  EXPECT_EQ(num_shown, 10u);
  EXPECT_THAT(message, HasSubstr("and perhaps more"));
}

TEST_F(EditedWeights, CountsWhatIsRounded) {
  tensors_["lm_head.weight"].dtype = TensorDType::kF32;
  tensors_["model.layers.0.mlp.up_proj.weight"].dtype = TensorDType::kF16;
  tensors_["model.layers.0.mlp.down_proj.weight"].dtype = TensorDType::kF16;
  tensors_["model.norm.weight"].dtype = TensorDType::kF32;  // a norm is kept exactly
  const WeightPlan planned = plan();
  EXPECT_EQ(planned.num_rounded_f32, 1);
  EXPECT_EQ(planned.num_rounded_f16, 2);
  EXPECT_EQ(planned.sources[WeightRole::kLmHead].format, WeightFormat::kF32);
  EXPECT_EQ(planned.layers[0].sources[WeightRole::kUp].format, WeightFormat::kF16);
}

TEST_F(EditedWeights, CountsTensorsItDoesNotUse) {
  TensorInfo extra = tensors_["model.norm.weight"];
  for (const char* name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.x.weight", "a", "b"}) {
    extra.name = name;
    tensors_[name] = extra;
  }
  extra.name = "model.layers.2.input_layernorm.weight";
  tensors_[extra.name] = extra;
  const WeightPlan planned = plan();
  EXPECT_EQ(planned.num_unused_tensors, 4);
  EXPECT_EQ(planned.some_unused.size(), 3u);
  EXPECT_EQ(planned.num_draft_tensors, 1);
  EXPECT_EQ(planned.draft_bytes, 128);
}

TEST_F(EditedWeights, ATiedHeadIsTheEmbeddingEvenWhenTheFileHasOne) {
  std::string config = read_whole_file(folder_ / "config.json");
  const std::string_view untied = "\"tie_word_embeddings\": false";
  config.replace(config.find(untied), untied.size(), "\"tie_word_embeddings\": true");
  folder_.write("config.json", config);
  const WeightPlan planned = plan();
  EXPECT_EQ(planned.sources[WeightRole::kLmHead].offset,
            planned.sources[WeightRole::kEmbedding].offset);
  EXPECT_EQ(planned.num_unused_tensors, 1);
}

TEST(WeightPlan, AConfigFarLargerThanTheFilesIsRefusedQuickly) {
  const ModelDescription model = read_model_description(data("glm4_moe"));
  ModelConfig absurd = model.config;
  absurd.layers.assign(1024, LayerKind::kMoe);
  absurd.moe.num_experts = 4096;
  const Checkpoint checkpoint = Checkpoint::open(data("glm4_moe"));
  EXPECT_THAT(
      message_of<ConfigError>([&] { plan_weights(absurd, model.architecture->names, checkpoint); }),
      HasSubstr("and perhaps more"));
}

TEST(NameMap, FillsInLayerAndExpert) {
  NameMap names = common_names();
  EXPECT_EQ(names.name(WeightRole::kExpertDown, 12, 345),
            "model.layers.12.mlp.experts.345.down_proj.weight");
  EXPECT_EQ(names.name(WeightRole::kEmbedding), "model.embed_tokens.weight");
  names[WeightRole::kExpertGate] =
      "model.layers.{layer}.block_sparse_moe.experts.{expert}.w1.weight";
  EXPECT_EQ(names.name(WeightRole::kExpertGate, 1, 2),
            "model.layers.1.block_sparse_moe.experts.2.w1.weight");
  EXPECT_THROW(NameMap().name(WeightRole::kRouter), std::logic_error);
}

}  // namespace
}  // namespace augur
