#include "configs/load_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <vector>

#include "configs/config_error.h"
#include "configs/config_writer.h"
#include "configs/yaml_reader.h"

namespace augur {
namespace {

EffectiveConfig load(const std::vector<std::string>& settings) {
  std::vector<ConfigOverride> overrides;
  for (const std::string& setting : settings) overrides.push_back(parse_set_option(setting));
  return load_config({}, overrides);
}

std::string error_of(const std::vector<std::string>& settings) {
  try {
    load(settings);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

class ConfigFileTest : public testing::Test {
 protected:
  void SetUp() override { std::ofstream(file_) << "execution:\n  num_threads: 3\n  isa: avx2\n"; }
  void TearDown() override { std::filesystem::remove(file_); }
  const std::filesystem::path file_ = testing::TempDir() + "augur_load_config_test.yaml";
};

TEST_F(ConfigFileTest, TheCommandLineWinsOverTheFileAndTheFileOverTheDefault) {
  const std::vector<ConfigOverride> overrides = {parse_set_option("execution.num_threads=5")};
  const EffectiveConfig effective = load_config(file_, overrides);
  EXPECT_EQ(effective.config.execution.num_threads, 5);
  EXPECT_EQ(effective.config.execution.isa, IsaChoice::kAvx2);
  EXPECT_EQ(effective.source_of("execution.num_threads"), "--set");
  EXPECT_EQ(effective.source_of("execution.isa"), file_.string() + ":3");
  EXPECT_EQ(effective.source_of("execution.device"), "default");
}

TEST(LoadConfig, AnOptionOfItsOwnIsNamedAsTheSource) {
  const std::vector<ConfigOverride> overrides = {{"model.path", "a=b", "--model a=b"}};
  const EffectiveConfig effective = load_config({}, overrides);
  EXPECT_EQ(effective.config.model.path, "a=b");
  EXPECT_EQ(effective.source_of("model.path"), "--model");
}

TEST(LoadConfig, TheLastOfTwoSettingsCounts) {
  EXPECT_EQ(load({"kv_cache.bytes=1GiB", "kv_cache.bytes=2GiB"}).config.kv_cache.bytes,
            int64_t{2} << 30);
}

TEST(LoadConfig, ErrorsNameTheOption) {
  EXPECT_EQ(error_of({"kv_cache.blocksize=32"}),
            "--set kv_cache.blocksize=32: unknown key \"kv_cache.blocksize\"; did you mean "
            "\"kv_cache.block_size\"?");
  EXPECT_EQ(error_of({"kv_cache.block_size=7"}),
            "--set kv_cache.block_size=7: found \"7\", accepted: a multiple of 16 from 0 to "
            "1024");
  EXPECT_THAT(error_of({"kv_cache=7"}), testing::HasSubstr("holds several keys"));
  EXPECT_THAT(error_of({"kv_cache.bytes"}), testing::HasSubstr("accepted: KEY=VALUE"));
  EXPECT_THAT(error_of({"=7"}), testing::HasSubstr("accepted: KEY=VALUE"));
}

TEST(LoadConfig, RefusesAStepSmallerThanTheBatchAndNamesBothSources) {
  EXPECT_EQ(error_of({"execution.max_tokens_per_step=63"}),
            "execution: execution.max_tokens_per_step 63 (--set) is less than "
            "execution.max_batch_size 64 (default); every running sequence needs a token of each "
            "step, so accepted: at least as many");
}

TEST(ConfigWriter, WhatItWritesReadsBackTheSame) {
  const EffectiveConfig effective =
      load({"model.path=/a \"b\" # c\\d: é", "kv_cache.bytes=1536KiB", "execution.isa=amx",
            "execution.pin_threads=false", "logging.level=off"});
  const std::string text = write_config(effective);
  EffectiveConfig again;
  read_yaml(text, "again.yaml", again);
  again.sources = effective.sources;
  EXPECT_EQ(write_config(again), text);
  EXPECT_EQ(again.config.model.path, "/a \"b\" # c\\d: é");
  EXPECT_EQ(again.config.execution.isa, IsaChoice::kAmx);
}

TEST(ConfigWriter, ShowsTheSourceOfEachValue) {
  const std::string text = write_config(load({"execution.num_threads=2"}));
  EXPECT_THAT(text, testing::ContainsRegex("num_threads: 2 +# --set\n"));
  EXPECT_THAT(text, testing::ContainsRegex("isa: auto +# default\n"));
}

TEST(ConfigWriter, HelpNamesEveryKey) {
  EngineConfig config;
  const std::string help = config_help();
  for (const ConfigField& field : list_fields(config).fields)
    EXPECT_THAT(help, testing::HasSubstr(field.path + "  ("));
}

}  // namespace
}  // namespace augur
