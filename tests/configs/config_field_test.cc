#include "configs/config_field.h"

#include <gtest/gtest.h>

#include <set>

#include "configs/engine_config.h"
#include "configs/yaml_reader.h"

namespace augur {
namespace {

TEST(ConfigField, EveryFieldHasItsOwnPathAndHelp) {
  EngineConfig config;
  std::set<std::string> paths;
  for (const ConfigField& field : list_fields(config).fields) {
    EXPECT_TRUE(paths.insert(field.path).second) << field.path;
    EXPECT_FALSE(field.help.empty()) << field.path;
    EXPECT_NE(field.path.find('.'), std::string::npos) << field.path;
  }
  EXPECT_TRUE(paths.contains("execution.max_batch_size"));
}

TEST(ConfigField, EveryDefaultIsAccepted) {
  EngineConfig config;
  for (const ConfigField& field : list_fields(config).fields) {
    std::string text = format_value(field);
    if (std::holds_alternative<std::string*>(field.value)) continue;  // written with quotes
    if (field.is_list()) {
      const std::optional<std::vector<std::string>> items = read_yaml_list(text);
      ASSERT_TRUE(items.has_value()) << field.path;
      EXPECT_EQ(parse_list(field, *items), std::nullopt) << field.path;
    } else {
      EXPECT_EQ(parse_value(field, text, /*is_quoted=*/false), std::nullopt) << field.path;
    }
    EXPECT_EQ(format_value(field), text) << field.path;
  }
}

TEST(ConfigField, ARefusedValueLeavesTheFieldAsItWas) {
  EngineConfig config;
  config.kv_cache.block_size = 32;
  const ConfigSchema schema = list_fields(config);
  const ConfigField* field = schema.find_field("kv_cache.block_size");
  ASSERT_NE(field, nullptr);
  EXPECT_NE(parse_value(*field, "17", false), std::nullopt);
  EXPECT_NE(parse_value(*field, "", false), std::nullopt);
  EXPECT_NE(parse_value(*field, "32 ", false), std::nullopt);
  EXPECT_NE(parse_value(*field, "+32", false), std::nullopt);
  EXPECT_EQ(config.kv_cache.block_size, 32);
  EXPECT_EQ(parse_value(*field, "48", false), std::nullopt);
  EXPECT_EQ(config.kv_cache.block_size, 48);
}

TEST(ConfigField, TakesNumbersWithAFraction) {
  EngineConfig config;
  const ConfigSchema schema = list_fields(config);
  const ConfigField& field = *schema.find_field("cache.expert_route.similarity_threshold");
  EXPECT_EQ(format_value(field), "0.92");
  EXPECT_EQ(parse_value(field, "0.985", false), std::nullopt);
  EXPECT_EQ(config.cache.expert_route.similarity_threshold, 0.985);
  EXPECT_EQ(parse_value(field, "1", false), std::nullopt);
  for (const char* text : {"1.01", "-0.1", "nan", "inf", "0.5x", "", "1e999", "0x1"}) {
    EXPECT_EQ(parse_value(field, text, false),
              "found \"" + std::string(text) + "\", accepted: a number from 0 to 1");
  }
  EXPECT_NE(parse_value(field, "0.5", /*is_quoted=*/true), std::nullopt);
  EXPECT_EQ(config.cache.expert_route.similarity_threshold, 1);
}

TEST(ConfigField, WritesBytesInTheLargestUnitThatDividesThem) {
  EngineConfig config;
  const ConfigSchema schema = list_fields(config);
  const ConfigField& bytes = *schema.find_field("kv_cache.bytes");
  const auto format = [&](int64_t value) {
    config.kv_cache.bytes = value;
    return format_value(bytes);
  };
  EXPECT_EQ(format(0), "0");
  EXPECT_EQ(format(1000), "1000");
  EXPECT_EQ(format(1536 << 10), "1536KiB");
  EXPECT_EQ(format(int64_t{8} << 30), "8GiB");
}

TEST(ConfigField, AVeryLongUnknownKeyIsCutInTheMessage) {
  EngineConfig config;
  const std::string message =
      explain_unknown_key(list_fields(config), "", std::string(100000, 'k'));
  EXPECT_LT(message.size(), 300u);
}

}  // namespace
}  // namespace augur
