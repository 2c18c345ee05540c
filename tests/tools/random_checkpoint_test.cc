#include "tools/random_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <algorithm>
#include <csignal>

#include "configs/config_error.h"
#include "engine/model/architecture.h"
#include "engine/model/weight_plan.h"
#include "tests/temp_folder.h"
#include "tools/checkpoint_presets.h"

namespace augur {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string_view preset(std::string_view name) {
  for (const CheckpointPreset& preset : checkpoint_presets()) {
    if (preset.name == name) return preset.config_json;
  }
  throw std::logic_error("no such preset");
}

class RandomCheckpointTest : public ::testing::Test {
 protected:
  RandomCheckpointOptions options(std::string_view config_json, std::string_view output = "model") {
    RandomCheckpointOptions options;
    options.output = folder_ / output;
    options.config_json = config_json;
    options.config_name = "config";
    options.shard_bytes = int64_t{1} << 40;
    options.num_threads = 2;
    return options;
  }
  WeightPlan plan(std::string_view output = "model") {
    const ModelDescription model = read_model_description(folder_ / output);
    return plan_weights(model.config, model.architecture->names,
                        Checkpoint::open(folder_ / output));
  }
  TempFolder folder_;
};

TEST_F(RandomCheckpointTest, WritesAFolderThatTheReaderAccepts) {
  const RandomCheckpointReport report = write_random_checkpoint(options(preset("tiny")));
  const WeightPlan planned = plan();
  EXPECT_EQ(planned.num_tensors, report.num_tensors);
  EXPECT_EQ(planned.total_stored_bytes(), report.num_bytes);
  EXPECT_EQ(planned.num_values, report.num_parameters);
  EXPECT_EQ(planned.num_unused_tensors, 0);
  EXPECT_EQ(report.num_shards, 1);
  EXPECT_EQ(planned.layers[1].sources[WeightRole::kCorrectionBias].format, WeightFormat::kF32);
  EXPECT_EQ(read_model_description(folder_ / "model").generation.eos_token_ids.size(), 3u);
}

TEST_F(RandomCheckpointTest, WritesShardsNoLargerThanAsked) {
  RandomCheckpointOptions sharded = options(preset("tiny"));
  sharded.shard_bytes = 300'000;
  const RandomCheckpointReport report = write_random_checkpoint(sharded);
  EXPECT_GT(report.num_shards, 4);
  int num_files = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "model")) {
    if (entry.path().extension() != ".safetensors") continue;
    ++num_files;
    // The embedding and the head are larger than a shard and have one each.
    const auto num_bytes = static_cast<int64_t>(fs::file_size(entry.path()));
    EXPECT_TRUE(num_bytes < 330'000 || num_bytes > 2'000'000) << entry.path() << " " << num_bytes;
  }
  EXPECT_EQ(num_files, report.num_shards);
  EXPECT_TRUE(fs::exists(folder_ / "model/model.safetensors.index.json"));
  EXPECT_EQ(plan().num_tensors, report.num_tensors);
}

TEST_F(RandomCheckpointTest, ValuesDependOnTheSeedAndTheNameAlone) {
  RandomCheckpointOptions other = options(preset("tiny"), "other");
  other.num_threads = 1;
  other.num_layers = 2;
  other.shard_bytes = 500'000;
  RandomCheckpointOptions reseeded = options(preset("tiny"), "reseeded");
  reseeded.seed = 1;
  write_random_checkpoint(options(preset("tiny")));
  write_random_checkpoint(other);
  write_random_checkpoint(reseeded);

  const auto values = [&](std::string_view folder) {
    const WeightPlan planned = plan(folder);
    const TensorSource& source = planned.layers[1].experts[3].up;
    return read_as_float(Checkpoint::open(folder_ / folder).files()[source.file_idx], source);
  };
  EXPECT_EQ(values("model"), values("other"));
  EXPECT_NE(values("model"), values("reseeded"));
}

TEST_F(RandomCheckpointTest, SetsTheNumberOfLayers) {
  RandomCheckpointOptions shortened = options(preset("tiny"));
  shortened.num_layers = 1;
  write_random_checkpoint(shortened);
  EXPECT_THAT(read_model_description(folder_ / "model").config.layers,
              ::testing::ElementsAre(LayerKind::kDense));

  RandomCheckpointOptions dense_first = options(
      R"({"architectures":["Qwen3MoeForCausalLM"],"hidden_size":32,"intermediate_size":48,
          "moe_intermediate_size":16,"num_hidden_layers":8,"num_attention_heads":2,"head_dim":16,
          "num_experts":4,"num_experts_per_tok":2,"mlp_only_layers":[0,6],"vocab_size":64,
          "max_position_embeddings":128,"rms_norm_eps":1e-6,
          "layer_types":["full_attention","full_attention"]})",
      "dense_first");
  dense_first.num_layers = 2;
  write_random_checkpoint(dense_first);
  EXPECT_THAT(read_model_description(folder_ / "dense_first").config.layers,
              ::testing::ElementsAre(LayerKind::kDense, LayerKind::kMoe));
}

TEST_F(RandomCheckpointTest, CopiesATokenizer) {
  RandomCheckpointOptions with_tokenizer = options(preset("tiny"));
  with_tokenizer.tokenizer = fs::path(AUGUR_SOURCE_DIR) / "models/tiny-glm4-moe";
  write_random_checkpoint(with_tokenizer);
  EXPECT_EQ(read_whole_file(folder_ / "model/tokenizer.json"),
            read_whole_file(with_tokenizer.tokenizer / "tokenizer.json"));
  EXPECT_TRUE(fs::exists(folder_ / "model/tokenizer_config.json"));

  RandomCheckpointOptions without = options(preset("tiny"), "without");
  without.tokenizer = folder_.path();
  EXPECT_THAT(message_of<ConfigError>([&] { write_random_checkpoint(without); }),
              HasSubstr("holds no tokenizer.json"));
}

TEST_F(RandomCheckpointTest, RefusesAFolderThatHoldsAModel) {
  write_random_checkpoint(options(preset("tiny")));
  EXPECT_THAT(message_of<ConfigError>([&] { write_random_checkpoint(options(preset("tiny"))); }),
              AllOf(HasSubstr("already holds"), HasSubstr("accepted: a folder without a model")));
}

TEST_F(RandomCheckpointTest, RefusesWhatTheDiskHasNoRoomForAndLeavesNothing) {
  // 1,024 layers of 4,096 experts of three matrices are too many tensors; 200 layers of the
  // largest matrices are some 300 TB.
  const std::string shape =
      R"({"architectures":["Qwen3MoeForCausalLM"],"hidden_size":131072,"intermediate_size":1048576,
          "num_attention_heads":4,"head_dim":16,"num_experts_per_tok":2,"vocab_size":64,
          "moe_intermediate_size":1048576,"max_position_embeddings":128,"rms_norm_eps":1e-6,)";
  EXPECT_THAT(
      message_of<ConfigError>([&] {
        write_random_checkpoint(options(shape + R"("num_experts":4096,"num_hidden_layers":1024})"));
      }),
      HasSubstr("more than 1000000 tensors"));
  EXPECT_THAT(
      message_of<ConfigError>([&] {
        write_random_checkpoint(options(shape + R"("num_experts":2,"num_hidden_layers":200})"));
      }),
      AllOf(HasSubstr("the checkpoint takes"), HasSubstr("GB free")));
  EXPECT_FALSE(fs::exists(folder_ / "model"));
}

/// No file of this process may grow past `max_bytes` while this lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t max_bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_limit_);
    const rlimit limit = {max_bytes, old_limit_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  void (*old_handler_)(int);
  rlimit old_limit_ = {};
};

TEST_F(RandomCheckpointTest, RemovesWhatItWroteWhenWritingFails) {
  const FileSizeLimit limit(3'000'000);  // as a disk that fills up
  RandomCheckpointOptions with_tokenizer = options(preset("tiny"));
  with_tokenizer.tokenizer = fs::path(AUGUR_SOURCE_DIR) / "models/tiny-glm4-moe";
  EXPECT_THAT(message_of<ConfigError>([&] { write_random_checkpoint(with_tokenizer); }),
              AllOf(HasSubstr("model.safetensors: cannot write"), HasSubstr("File too large")));
  EXPECT_FALSE(fs::exists(folder_ / "model"));
}

TEST_F(RandomCheckpointTest, RefusesAConfigThatCannotRun) {
  EXPECT_THAT(message_of<ConfigError>([&] { write_random_checkpoint(options("{")); }),
              HasSubstr("config: is not JSON"));
  EXPECT_THAT(message_of<ConfigError>([&] { write_random_checkpoint(options("[]")); }),
              HasSubstr("config: is not a JSON object"));
  EXPECT_THAT(message_of<ConfigError>(
                  [&] { write_random_checkpoint(options(R"({"architectures":["Other"]})")); }),
              HasSubstr("architectures"));
}

TEST_F(RandomCheckpointTest, EveryPresetIsAConfigThatRuns) {
  for (const CheckpointPreset& preset : checkpoint_presets()) {
    const ModelDescription model =
        describe_model(HfConfig::parse(preset.config_json, std::string(preset.name)), {});
    EXPECT_FALSE(model.config.eos_token_ids.empty()) << preset.name;
  }
  const ModelConfig qwen =
      describe_model(HfConfig::parse(preset("qwen3-30b-a3b"), "preset"), {}).config;
  int64_t num_parameters = 0;
  visit_wanted_tensors(qwen, [&](const WantedTensor& tensor) {
    num_parameters += tensor.num_rows * std::max<int64_t>(tensor.num_cols, 1);
    return true;
  });
  EXPECT_EQ(num_parameters, 30'532'122'624);  // as published: 30.5 billion
}

TEST(FillRandom, IsUniformAroundItsCentre) {
  std::vector<float> values(100'000);
  fill_random(7, 0, std::ssize(values), 1.0f, 0.5f, values.data());
  double sum = 0;
  double sum_of_squares = 0;
  for (const float value : values) {
    ASSERT_GE(value, 0.5f);
    ASSERT_LE(value, 1.5f);
    sum += value - 1;
    sum_of_squares += (value - 1) * (value - 1);
  }
  const double count = static_cast<double>(values.size());
  EXPECT_NEAR(sum / count, 0, 0.005);                     // five standard errors
  EXPECT_NEAR(sum_of_squares / count, 0.25 / 3, 0.0012);  // likewise
}

TEST(FillRandom, GivesTheSameValuesInPieces) {
  std::vector<Bf16> whole(103);
  std::vector<Bf16> pieces(103);
  fill_random(3, 0, 103, 0, 1, whole.data());
  fill_random(3, 0, 40, 0, 1, pieces.data());
  fill_random(3, 40, 63, 0, 1, pieces.data() + 40);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(whole[i].bits, pieces[i].bits) << i;
  EXPECT_THROW(fill_random(3, 2, 4, 0, 1, pieces.data()), std::logic_error);
}

}  // namespace
}  // namespace augur
