#include "engine/model/model_loader.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "configs/config_error.h"
#include "engine/model/limits_plan.h"
#include "kernels/cpu/cpu_ops.h"
#include "tests/prefetch/row_major_ops.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::filesystem::path kRoot = AUGUR_SOURCE_DIR;

EngineConfig tiny_config() {
  EngineConfig config;
  config.model.path = (kRoot / "tests/model/data/glm4_moe").string();
  config.execution.num_threads = 1;
  config.execution.max_batch_size = 4;
  config.execution.max_tokens_per_step = 64;
  config.kv_cache.block_size = 16;
  return config;
}

template <typename Error>
std::string error_of(const EngineConfig& config) {
  return message_of<Error>([&] { load_model(config, {}); });
}

TEST(ModelLoaderTest, TellsPhasesAndProgress) {
  std::string told;
  int64_t last_done = 0;
  int64_t last_total = 0;
  LoadListener listener;
  listener.on_message = [&](const std::string& line) { told += line + "\n"; };
  listener.on_progress = [&](int64_t done, int64_t total) {
    EXPECT_GE(done, last_done);
    last_done = done;
    last_total = total;
  };
  const auto model = load_model(tiny_config(), listener);
  EXPECT_EQ(last_done, last_total);
  EXPECT_GT(last_total, 300'000);
  EXPECT_THAT(told, AllOf(HasSubstr("weights"), HasSubstr("KV cache"), HasSubstr("available")));
  ASSERT_EQ(model->phases.size(), 6u);
  EXPECT_FALSE(model->tokenizer);
}

TEST(ModelLoaderTest, RefusesWhatDoesNotFitWithTheTable) {
  EngineConfig config = tiny_config();
  config.kv_cache.bytes = int64_t{1} << 50;
  EXPECT_THAT(error_of<OutOfMemory>(config),
              AllOf(HasSubstr("does not fit"), HasSubstr("KV cache"), HasSubstr("available"),
                    HasSubstr("a smaller kv_cache.bytes")));
}

TEST(ModelLoaderTest, RefusesALongerContextThanTheModels) {
  EngineConfig config = tiny_config();
  config.kv_cache.max_context = 257;
  EXPECT_THAT(error_of<ConfigError>(config),
              AllOf(HasSubstr("kv_cache.max_context"), HasSubstr("256")));
}

TEST(ModelLoaderTest, RefusesACacheOfLessThanABlock) {
  EngineConfig config = tiny_config();
  config.kv_cache.bytes = 100;
  EXPECT_THAT(error_of<ConfigError>(config), HasSubstr("less than one block"));
}

TEST(ModelLoaderTest, ShortensTheContextToWhatTheCacheHolds) {
  EngineConfig config = tiny_config();
  const auto whole = load_model(config, {});
  EXPECT_EQ(whole->decoder->limits().max_context, 256);
  const int64_t block_bytes =
      3 * whole->ops->kv_block_bytes(16, /*num_kv_heads=*/2, /*head_dim=*/16, KvFormat::kNative);
  config.kv_cache.bytes = 5 * block_bytes + 1;
  const auto model = load_model(config, {});
  EXPECT_EQ(model->decoder->limits().num_kv_blocks, 5);
  EXPECT_EQ(model->decoder->limits().max_context, 80);
}

int64_t planned_kv_bytes(const LoadedModel& model) {
  for (const MemoryItem& item : model.memory.items) {
    if (item.name.starts_with("KV cache")) return item.num_bytes;
  }
  return -1;
}

TEST(ModelLoaderTest, PlansAnInt8CacheOfHalfTheValuesAndTheirScales) {
  EngineConfig config = tiny_config();
  const auto bf16 = load_model(config, {});
  config.kv_cache.dtype = KvDtypeChoice::kInt8;
  const auto int8 = load_model(config, {});
  EXPECT_EQ(bf16->decoder->limits().kv_format, KvFormat::kNative);
  EXPECT_EQ(int8->decoder->limits().kv_format, KvFormat::kInt8);
  EXPECT_EQ(int8->decoder->limits().num_kv_blocks, bf16->decoder->limits().num_kv_blocks);
  EXPECT_THAT(int8->memory.to_string(), HasSubstr("positions in int8"));
  EXPECT_THAT(bf16->memory.to_string(), HasSubstr("positions in bf16"));
  // Heads of 16 values: 16 bytes and a scale for each key and value instead of 32 bytes.
  EXPECT_EQ(planned_kv_bytes(*int8), planned_kv_bytes(*bf16) / 32 * (16 + 4));
}

TEST(ModelLoaderTest, FitsMorePositionsIntoTheSameBytesInInt8) {
  EngineConfig config = tiny_config();
  const auto ops = make_cpu_ops(1);
  ModelConfig model;
  model.hidden_size = 256;
  model.vocab_size = 1000;
  model.max_position_embeddings = 1 << 20;
  model.dense_intermediate_size = 512;
  model.attention = {.num_heads = 32, .num_kv_heads = 4, .head_dim = 128};
  model.layers.assign(2, LayerKind::kDense);
  config.kv_cache.bytes = int64_t{64} << 20;
  const int64_t num_bf16 = plan_limits(config, model, *ops, 0).num_kv_blocks;
  config.kv_cache.dtype = KvDtypeChoice::kInt8;
  EXPECT_EQ(plan_limits(config, model, *ops, 0).num_kv_blocks, num_bf16 * 256 / (128 + 4));
}

TEST(ModelLoaderTest, RefusesACacheThatTheBackendDoesNotKeep) {
  EngineConfig config = tiny_config();
  config.kv_cache.dtype = KvDtypeChoice::kBF16;
  EXPECT_EQ(load_model(config, {})->decoder->limits().kv_format, KvFormat::kNative);
  config.execution.precision = PrecisionChoice::kReference;
  EXPECT_THAT(error_of<ConfigError>(config),
              AllOf(HasSubstr("kv_cache.dtype"), HasSubstr("accepted on reference"),
                    HasSubstr("auto, int8")));
  // A backend that keeps only its own format.
  const RowMajorOps native_only;
  config.kv_cache.dtype = KvDtypeChoice::kInt8;
  EXPECT_THAT(message_of<ConfigError>([&] { plan_limits(config, ModelConfig{}, native_only, 0); }),
              AllOf(HasSubstr("kv_cache.dtype"), HasSubstr("int8 runs on the CPU"),
                    HasSubstr("auto, bf16")));
}

TEST(ModelLoaderTest, RefusesATokenizerOfMoreTokensThanTheModel) {
  const TempFolder folder;
  for (const char* name : {"config.json", "model.safetensors"}) {
    std::filesystem::copy_file(kRoot / "tests/model/data/glm4_moe" / name, folder.path() / name);
  }
  std::filesystem::copy_file(kRoot / "models/tiny-glm4-moe/tokenizer.json",
                             folder.path() / "tokenizer.json");
  EngineConfig config = tiny_config();
  config.model.path = folder.path().string();
  EXPECT_THAT(error_of<ConfigError>(config),
              AllOf(HasSubstr("tokenizer.json"), HasSubstr("8191"), HasSubstr("160")));
}

TEST(ModelLoaderTest, RefusesInstructionsThatTheMachineLacks) {
  if (cpu::has_isa(cpu::Isa::kAmx)) GTEST_SKIP() << "this machine has all of them";
  EngineConfig config = tiny_config();
  config.execution.isa = IsaChoice::kAmx;
  EXPECT_THAT(error_of<ConfigError>(config), AllOf(HasSubstr("execution.isa"), HasSubstr("amx")));
}

TEST(ModelLoaderTest, TakesSmallerStepsForAWideModel) {
  ModelConfig wide;
  wide.hidden_size = 8192;
  wide.vocab_size = 128256;
  wide.max_position_embeddings = 8192;
  wide.dense_intermediate_size = 28672;
  wide.attention = {.num_heads = 64, .num_kv_heads = 8, .head_dim = 128};
  wide.rope.rotary_dim = 128;
  wide.layers.assign(2, LayerKind::kDense);
  EngineConfig config = tiny_config();
  config.execution.max_tokens_per_step = 2048;
  const auto ops = make_cpu_ops(1);
  EXPECT_LT(plan_limits(config, wide, *ops, int64_t{8} << 30).max_tokens, 2048);
  EXPECT_GE(plan_limits(config, wide, *ops, int64_t{8} << 30).max_tokens, 256);
}

}  // namespace
}  // namespace augur
