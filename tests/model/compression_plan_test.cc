#include "engine/model/compression_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/config_error.h"
#include "engine/model/model_loader.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using enum ExpertFormat;

// A dense layer, then three with experts of 100 bytes a layer, 50 in int8; a KV cache of 300 bytes,
// 160 in int8.
CompressionChoices choices() {
  return {.layers = {LayerKind::kDense, LayerKind::kMoe, LayerKind::kMoe, LayerKind::kMoe},
          .native_layer_bytes = 100,
          .int8_layer_bytes = 50,
          .kv_formats = {KvFormat::kNative, KvFormat::kInt8},
          .kv_bytes = [](int64_t, KvFormat format) {
            return CompressedBytes{300, format == KvFormat::kInt8 ? 160 : 300};
          }};
}

TEST(CompressionPlanTest, ChangesNothingForARatioOfOne) {
  const CompressionPlan plan = plan_compression(1, choices());
  EXPECT_EQ(plan.experts, (std::vector{kBF16, kBF16, kBF16, kBF16}));
  EXPECT_EQ(plan.kv_format, KvFormat::kNative);
  EXPECT_EQ(plan.total().before, 600);
  EXPECT_EQ(plan.total().after, 600);
}

TEST(CompressionPlanTest, TakesLastLayersFirstAndNoMoreThanTheRatioAsksFor) {
  EXPECT_EQ(plan_compression(600.0 / 550, choices()).experts,
            (std::vector{kBF16, kBF16, kBF16, kInt8}));
  const CompressionPlan two = plan_compression(600.0 / 550 + 0.001, choices());
  EXPECT_EQ(two.experts, (std::vector{kBF16, kBF16, kInt8, kInt8}));
  EXPECT_EQ(two.kv_format, KvFormat::kNative);
  EXPECT_DOUBLE_EQ(two.ratio(), 600.0 / 500);
  EXPECT_EQ(two.int8_experts.before, 200);
  EXPECT_EQ(two.int8_experts.after, 100);
  EXPECT_EQ(two.other_experts.after, 100);
}

TEST(CompressionPlanTest, TakesTheKvCacheWhereExpertsDoNotSuffice) {
  // All experts in int8 come to 600 / 450; the cache and one layer to 600 / 410.
  const CompressionPlan plan = plan_compression(1.45, choices());
  EXPECT_EQ(plan.kv_format, KvFormat::kInt8);
  EXPECT_EQ(plan.experts, (std::vector{kBF16, kBF16, kBF16, kInt8}));
  EXPECT_DOUBLE_EQ(plan.ratio(), 600.0 / 410);
}

TEST(CompressionPlanTest, ReachesTheLargestRatioAndRefusesMoreNamingIt) {
  const CompressionPlan all = plan_compression(600.0 / 310, choices());
  EXPECT_EQ(all.experts, (std::vector{kBF16, kInt8, kInt8, kInt8}));
  EXPECT_EQ(all.kv_format, KvFormat::kInt8);
  EXPECT_THAT(message_of<ConfigError>([] { plan_compression(1.94, choices()); }),
              AllOf(HasSubstr("memory.compression.ratio"), HasSubstr("found 1.94"),
                    HasSubstr("up to 1.935")));
  CompressionChoices fixed = choices();
  fixed.kv_formats = {KvFormat::kNative};
  EXPECT_THAT(message_of<ConfigError>([&] { plan_compression(1.45, fixed); }),
              HasSubstr("up to 1.333"));
}

// A cache that takes what is left grows as experts shrink.
TEST(CompressionPlanTest, AsksForTheCacheThatFitsBesideTheExperts) {
  CompressionChoices growing = choices();
  std::vector<int64_t> asked;
  growing.kv_bytes = [&](int64_t expert_bytes, KvFormat) {
    asked.push_back(expert_bytes);
    return CompressedBytes{400 - expert_bytes, 400 - expert_bytes};
  };
  const CompressionPlan plan = plan_compression(1.2, growing);
  EXPECT_EQ(asked, (std::vector<int64_t>{300, 250, 200}));
  EXPECT_EQ(plan.kv_cache.after, 200);
  EXPECT_DOUBLE_EQ(plan.ratio(), 500.0 / 400);
}

TEST(CompressionPlanTest, TellsWhatItKeepsHow) {
  EXPECT_THAT(plan_compression(1.45, choices()).to_string(),
              AllOf(HasSubstr("experts of layers 3 "), HasSubstr("experts of the other layers"),
                    HasSubstr("KV cache                             int8          300 B"),
                    HasSubstr("600 B ->        410 B, ratio 1.463")));
  EXPECT_THAT(plan_compression(1.9, choices()).to_string(), HasSubstr("experts of layers 1-3 "));
}

EngineConfig compressed_demo(double ratio) {
  EngineConfig config;
  config.model.path = std::string(AUGUR_SOURCE_DIR) + "/models/tiny-glm4-moe";
  config.memory.compression.enabled = true;
  config.memory.compression.ratio = ratio;
  config.execution.device = DeviceChoice::kCpu;
  config.execution.num_threads = 1;
  config.kv_cache.max_context = 256;
  config.execution.max_batch_size = 4;
  return config;
}

TEST(CompressionTest, LoadsAsPlannedAndTellsIt) {
  std::string told;
  LoadListener listener;
  listener.on_message = [&](const std::string& line) { told += line + "\n"; };
  const std::unique_ptr<LoadedModel> model = load_model(compressed_demo(1.8), listener);
  EXPECT_THAT(told, AllOf(HasSubstr("memory.compression:"), HasSubstr("ratio 1.9")));
  EXPECT_EQ(model->weights.expert_slots, nullptr);
  EXPECT_EQ(model->weights.layers[1].moe.experts.layout.format, kInt8);
  EXPECT_EQ(model->decoder->limits().kv_format, KvFormat::kInt8);

  EngineConfig config = compressed_demo(1.1);
  const std::unique_ptr<LoadedModel> some = load_model(config, {});
  EXPECT_EQ(some->weights.layers[1].moe.experts.layout.format, kBF16);
  EXPECT_EQ(some->weights.layers[6].moe.experts.layout.format, kInt8);
  EXPECT_EQ(some->decoder->limits().kv_format, KvFormat::kNative);
  config.memory.compression.enabled = false;
  const std::unique_ptr<LoadedModel> plain = load_model(config, {});
  const auto bytes = [](const LoadedModel& loaded) {
    return loaded.memory.total_bytes() - loaded.memory.items.back().num_bytes;
  };
  EXPECT_LT(bytes(*model), bytes(*some));
  EXPECT_LT(bytes(*some), bytes(*plain));
}

TEST(CompressionTest, LeavesTheCacheAsItWasSet) {
  EngineConfig config = compressed_demo(1.8);
  config.kv_cache.dtype = KvDtypeChoice::kBF16;
  EXPECT_THAT(message_of<ConfigError>([&] { load_model(config, {}); }),
              AllOf(HasSubstr("memory.compression.ratio"), HasSubstr("up to 1.7")));
  config.memory.compression.ratio = 1.05;
  config.kv_cache.dtype = KvDtypeChoice::kInt8;
  const std::unique_ptr<LoadedModel> model = load_model(config, {});
  EXPECT_EQ(model->decoder->limits().kv_format, KvFormat::kInt8);
}

TEST(CompressionTest, RefusesAPool) {
  EngineConfig config = compressed_demo(1.5);
  config.cache.experts.device_bytes = 4 << 20;
  EXPECT_THAT(message_of<ConfigError>([&] { load_model(config, {}); }),
              AllOf(HasSubstr("memory.compression.enabled"), HasSubstr("cache.experts")));
}

}  // namespace
}  // namespace augur
