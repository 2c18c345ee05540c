#include "configs/yaml_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "configs/config_error.h"

namespace augur {
namespace {

EffectiveConfig read(const std::string& text) {
  EffectiveConfig effective;
  read_yaml(text, "f.yaml", effective);
  return effective;
}

/// What the reader says of bad text; empty when it takes it.
std::string error_of(const std::string& text) {
  try {
    read(text);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(YamlReader, SetsWhatTheFileNamesAndKeepsTheRest) {
  const EffectiveConfig read_config = read(
      "model:\n  path: /data/glm\n"
      "execution: {num_threads: 3, precision: reference, pin_threads: false}\n"
      "kv_cache:\n  bytes: 8GiB\n  block_size: 128\n");
  EXPECT_EQ(read_config.config.model.path, "/data/glm");
  EXPECT_EQ(read_config.config.execution.num_threads, 3);
  EXPECT_EQ(read_config.config.execution.precision, PrecisionChoice::kReference);
  EXPECT_FALSE(read_config.config.execution.pin_threads);
  EXPECT_EQ(read_config.config.kv_cache.bytes, int64_t{8} << 30);
  EXPECT_EQ(read_config.config.kv_cache.block_size, 128);
  EXPECT_EQ(read_config.config.execution.max_batch_size, ExecutionConfig().max_batch_size);
}

TEST(YamlReader, RemembersTheLineOfEachValue) {
  const EffectiveConfig read_config = read("execution:\n\n  num_threads: 3\n");
  EXPECT_EQ(read_config.source_of("execution.num_threads"), "f.yaml:3");
  EXPECT_EQ(read_config.source_of("execution.isa"), "default");
}

TEST(YamlReader, TakesAnEmptyFileAndEmptySections) {
  EXPECT_EQ(error_of(""), "");
  EXPECT_EQ(error_of("# only a comment\n"), "");
  EXPECT_EQ(error_of("---\n"), "");
  EXPECT_EQ(error_of("execution:\n  # num_threads: 3\nkv_cache: {}\n"), "");
}

TEST(YamlReader, TakesSizesWithSuffixes) {
  const auto bytes_of = [](const std::string& size) {
    return read("kv_cache: {bytes: " + size + "}").config.kv_cache.bytes;
  };
  EXPECT_EQ(bytes_of("1000"), 1000);
  EXPECT_EQ(bytes_of("3KiB"), 3 << 10);
  EXPECT_EQ(bytes_of("512 MiB"), 512 << 20);
  EXPECT_EQ(bytes_of("\"2 TiB\""), int64_t{2} << 40);
}

TEST(YamlReader, SuggestsTheNearestNameForAnUnknownKey) {
  EXPECT_EQ(error_of("execution:\n  max_batchsize: 3\n"),
            "f.yaml:2: unknown key \"execution.max_batchsize\"; did you mean "
            "\"execution.max_batch_size\"?");
  EXPECT_EQ(error_of("exection: {}\n"),
            "f.yaml:1: unknown key \"exection\"; did you mean \"execution\"?");
}

TEST(YamlReader, FindsAKeyThatBelongsToAnotherSection) {
  EXPECT_EQ(error_of("block_size: 32\n"),
            "f.yaml:1: unknown key \"block_size\"; did you mean \"kv_cache.block_size\"?");
}

TEST(YamlReader, ListsTheKeysWhenNoneIsNear) {
  EXPECT_EQ(error_of("kv_cache:\n  banana: 1\n"),
            "f.yaml:2: unknown key \"kv_cache.banana\"; accepted: dtype, block_size, bytes, "
            "max_context, prefix_cache");
}

TEST(YamlReader, RefusesADottedKey) {
  EXPECT_THAT(error_of("kv_cache.block_size: 32\n"),
              testing::HasSubstr("unknown key \"kv_cache.block_size\""));
}

TEST(YamlReader, RefusesWrongTypesWithFoundAndAccepted) {
  EXPECT_EQ(error_of("execution:\n  num_threads: many\n"),
            "f.yaml:2: execution.num_threads: found \"many\", accepted: a whole number from 0 to "
            "1024");
  EXPECT_EQ(error_of("execution: {num_threads: 1.5}"),
            "f.yaml:1: execution.num_threads: found \"1.5\", accepted: a whole number from 0 to "
            "1024");
  EXPECT_EQ(error_of("execution: {num_threads: \"2\"}"),
            "f.yaml:1: execution.num_threads: found the text \"2\", accepted: a whole number "
            "from 0 to 1024");
  EXPECT_EQ(error_of("execution: {pin_threads: yes}"),
            "f.yaml:1: execution.pin_threads: found \"yes\", accepted: true or false");
  EXPECT_EQ(error_of("execution: {isa: sse}"),
            "f.yaml:1: execution.isa: found \"sse\", accepted: auto, portable, avx2, avx512 or "
            "amx");
  EXPECT_EQ(error_of("execution:\n  num_threads:\n"),
            "f.yaml:2: execution.num_threads: found nothing, accepted: a whole number from 0 to "
            "1024");
}

TEST(YamlReader, RefusesNumbersOutOfRange) {
  EXPECT_THAT(error_of("kv_cache: {block_size: 24}"),
              testing::HasSubstr("found \"24\", accepted: a multiple of 16 from 0 to 1024"));
  EXPECT_THAT(error_of("execution: {max_batch_size: 0}"), testing::HasSubstr("from 1 to 65536"));
  EXPECT_THAT(error_of("execution: {num_threads: -1}"), testing::HasSubstr("found \"-1\""));
  EXPECT_THAT(error_of("execution: {num_threads: 99999999999999999999}"),
              testing::HasSubstr("found \"99999999999999999999\""));
}

TEST(YamlReader, RefusesSizesThatOverflow) {
  EXPECT_THAT(error_of("kv_cache: {bytes: 9007199254740993GiB}"), testing::HasSubstr("8GiB"));
  EXPECT_THAT(error_of("kv_cache: {bytes: -1}"), testing::HasSubstr("at least 0"));
  EXPECT_THAT(error_of("kv_cache: {bytes: 12GB}"), testing::HasSubstr("found \"12GB\""));
  EXPECT_THAT(error_of("kv_cache: {bytes: GiB}"), testing::HasSubstr("found \"GiB\""));
}

TEST(YamlReader, RefusesARepeatedKey) {
  EXPECT_EQ(error_of("execution:\n  isa: auto\n  isa: avx2\n"),
            "f.yaml:3: execution.isa: found a second time, accepted: each key once");
  EXPECT_THAT(error_of("model: {}\nmodel: {}\n"), testing::HasSubstr("second time"));
}

TEST(YamlReader, RefusesOtherShapes) {
  EXPECT_THAT(error_of("execution: 3"), testing::HasSubstr("accepted in \"execution\" are keys"));
  EXPECT_THAT(error_of("hello"), testing::HasSubstr("found the value \"hello\""));
  EXPECT_THAT(error_of("- a\n- b\n"), testing::HasSubstr("found a list"));
  EXPECT_THAT(error_of("model: {path: [a, b]}"),
              testing::HasSubstr("model.path: found a list, accepted: text"));
  EXPECT_THAT(error_of("model: {path: {a: b}}"), testing::HasSubstr("found keys within it"));
  EXPECT_THAT(error_of("? {a: b}\n: c\n"), testing::HasSubstr("a map as a key"));
  EXPECT_THAT(error_of("model: {}\n---\nmodel: {}\n"), testing::HasSubstr("second document"));
}

TEST(YamlReader, ReadsLists) {
  EffectiveConfig effective;
  read_yaml("warmup:\n  prompts:\n    - one\n    - \"two, three\"\nmetrics: {compat: [vllm]}\n",
            "f.yaml", effective);
  EXPECT_THAT(effective.config.warmup.prompts, testing::ElementsAre("one", "two, three"));
  EXPECT_THAT(effective.config.metrics.compat, testing::ElementsAre("vllm"));
  EXPECT_EQ(effective.sources["warmup.prompts"], "f.yaml:2");
  read_yaml("server: {open_paths: []}", "f.yaml", effective);
  EXPECT_THAT(effective.config.server.open_paths, testing::IsEmpty());
}

TEST(YamlReader, RefusesListsOfOtherThings) {
  EXPECT_THAT(error_of("warmup: {prompts: [[a]]}"), testing::HasSubstr("a list within the list"));
  EXPECT_THAT(error_of("warmup: {prompts: [{a: b}]}"), testing::HasSubstr("keys within the list"));
  EXPECT_THAT(error_of("warmup: {prompts: [~]}"), testing::HasSubstr("an empty item"));
  EXPECT_THAT(error_of("warmup: {prompts: text}"),
              testing::HasSubstr("found \"text\", accepted: a list of texts"));
  EXPECT_THAT(error_of("metrics: {compat: [vlm]}"),
              testing::HasSubstr("found \"vlm\", accepted: a list of vllm"));
  EXPECT_THAT(error_of("metrics: {compat: [vllm, vllm]}"), testing::HasSubstr("twice"));
  EXPECT_THAT(error_of("warmup: {prompts: [&a b]}"), testing::HasSubstr("found an anchor"));
}

TEST(YamlReader, ReadsListsOfTheCommandLine) {
  using Items = std::vector<std::string>;
  EXPECT_EQ(read_yaml_list("[a, \"b, c\"]"), (Items{"a", "b, c"}));
  EXPECT_EQ(read_yaml_list("one text, with a comma"), Items{"one text, with a comma"});
  EXPECT_EQ(read_yaml_list(""), Items{});
  EXPECT_EQ(read_yaml_list("[]"), Items{});
  EXPECT_EQ(read_yaml_list("[a"), std::nullopt);
  EXPECT_EQ(read_yaml_list("[[a]]"), std::nullopt);
  EXPECT_EQ(read_yaml_list("[{a: b}]"), std::nullopt);
}

TEST(YamlReader, RefusesAnchorsAliasesTagsAndMergeKeys) {
  EXPECT_THAT(error_of("model: &m {path: a}\n"), testing::HasSubstr("found an anchor"));
  EXPECT_THAT(error_of("model: {path: &p a}\n"), testing::HasSubstr("found an anchor"));
  EXPECT_NE(error_of("a: &a [x, x]\nb: &b [*a, *a]\n"), "");
  EXPECT_THAT(error_of("model: *m\n"), testing::HasSubstr("anchor is not defined"));
  EXPECT_THAT(error_of("<<: {}\n"), testing::HasSubstr("unknown key \"<<\""));
  EXPECT_THAT(error_of("model: {path: !!str a}\n"), testing::HasSubstr("tag"));
}

TEST(YamlReader, NamesTheLineOfBrokenSyntax) {
  EXPECT_THAT(error_of("model: {}\nexecution: {isa: auto\n"),
              testing::ContainsRegex("f.yaml:[23]: not valid YAML"));
  EXPECT_THAT(error_of("model: {}\nexecution: ]\n"),
              testing::StartsWith("f.yaml:2: not valid YAML"));
  EXPECT_EQ(error_of("model:\n\tpath: a\n"),
            "f.yaml:2: found a tab before the key, accepted: spaces");
}

TEST(YamlReader, RefusesDeepNestingAtOnce) {
  EXPECT_NE(error_of(std::string(100000, '[')), "");
  EXPECT_NE(error_of(std::string(100000, '{')), "");
}

TEST(YamlReader, RefusesAFileThatIsTooLongOrMissing) {
  const auto folder = std::filesystem::path(testing::TempDir());
  const auto long_file = folder / "augur_long.yaml";
  std::ofstream(long_file) << std::string(static_cast<size_t>(kMaxConfigFileBytes) + 1, '#');
  EffectiveConfig effective;
  EXPECT_THROW(read_yaml_file(long_file, effective), ConfigError);
  EXPECT_THROW(read_yaml_file(folder / "augur_absent.yaml", effective), ConfigError);
  EXPECT_THROW(read_yaml_file(folder, effective), ConfigError);
  std::filesystem::remove(long_file);
}

}  // namespace
}  // namespace augur
