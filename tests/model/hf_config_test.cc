#include "engine/model/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/config_error.h"
#include "engine/model/generation_config.h"
#include "tests/temp_folder.h"

namespace augur {
namespace {

using ::testing::HasSubstr;

HfConfig parse(std::string_view json) {
  return HfConfig::parse(json, "config.json");
}

template <typename Action>
std::string refusal(const Action& action) {
  return message_of<ConfigError>(action);
}

TEST(HfConfig, ReadsTypedValues) {
  const HfConfig config =
      parse(R"({"i":3,"n":-2.5,"whole":4,"b":true,"s":"text","l":[1,2],"null":null})");
  EXPECT_EQ(config.integer("i", {0, 10}), 3);
  EXPECT_EQ(config.number("n", {-3, 0}), -2.5);
  EXPECT_EQ(config.number("whole", {0, 10}), 4.0);
  EXPECT_TRUE(config.boolean_or("b", false));
  EXPECT_EQ(config.text("s"), "text");
  EXPECT_EQ(config.integers("l", {0, 10}), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(config.integers("i", {0, 10}), (std::vector<int64_t>{3}));
  EXPECT_TRUE(config.has("i"));
  EXPECT_FALSE(config.has("null"));
}

TEST(HfConfig, FallsBackWhereAKeyIsAbsentOrNull) {
  const HfConfig config = parse(R"({"null":null})");
  for (const char* key : {"absent", "null"}) {
    EXPECT_EQ(config.integer_or(key, 7, {0, 1}), 7);
    EXPECT_EQ(config.number_or(key, 0.5, {1, 2}), 0.5);
    EXPECT_TRUE(config.boolean_or(key, true));
    EXPECT_EQ(config.text_or(key, "default"), "default");
    EXPECT_TRUE(config.integers(key, {0, 1}).empty());
    EXPECT_TRUE(config.texts(key).empty());
    EXPECT_FALSE(config.object(key).has_value());
  }
}

TEST(HfConfig, SaysFileKeyFoundAndAccepted) {
  const HfConfig config = parse(R"({"layers":-3,"sub":{"factor":"eight"},"text":7})");
  EXPECT_EQ(refusal([&] {
              config.integer("layers", {1, 1024});
            }),
            "config.json: layers: found '-3'; accepted: a whole number from 1 to 1024");
  EXPECT_EQ(refusal([&] {
              config.integer("heads", {1, 64});
            }),
            "config.json: heads: is missing; accepted: a whole number from 1 to 64");
  EXPECT_EQ(refusal([&] {
              config.object("sub")->number("factor", {1, 2});
            }),
            "config.json: sub.factor: found '\"eight\"'; accepted: a number from 1 to 2");
  EXPECT_EQ(refusal([&] { config.text("text"); }),
            "config.json: text: found '7'; accepted: a string");
}

TEST(HfConfig, RefusesOtherTypes) {
  const HfConfig config = parse(R"({"f":4.0,"s":"4","b":1,"huge":9223372036854775808,
                                    "l":[1,"2"],"o":[],"t":["a",1]})");
  EXPECT_THROW(config.integer("f", {0, 10}), ConfigError);
  EXPECT_THROW(config.integer("s", {0, 10}), ConfigError);
  EXPECT_THROW(config.integer("huge", {0, INT64_MAX}), ConfigError);
  EXPECT_THROW(config.boolean_or("b", false), ConfigError);
  EXPECT_THROW(config.integers("l", {0, 10}), ConfigError);
  EXPECT_THROW(config.integers("s", {0, 10}), ConfigError);
  EXPECT_THROW(config.number("s", {0, 10}), ConfigError);
  EXPECT_THROW(config.object("o"), ConfigError);
  EXPECT_THROW(config.texts("t"), ConfigError);
}

TEST(HfConfig, RefusesTextThatIsNotAnObject) {
  for (const char* json :
       {"", "[]", "3", "{", R"({"a":NaN})", R"({"a":Infinity})", R"({"a":1e999})", R"({"a":01})",
        R"({"a":1}})", "{\"a\":\"\xff\"}", R"({"a":1,})"}) {
    EXPECT_THROW(parse(json), ConfigError) << json;
  }
}

TEST(HfConfig, RefusesRepeatedKeys) {
  EXPECT_THAT(refusal([] { parse(R"({"a":1,"b":2,"a":3})"); }),
              HasSubstr("the key 'a' comes twice"));
  const HfConfig config = parse(R"({"sub":{"x":1,"x":1}})");
  EXPECT_THAT(refusal([&] { config.object("sub"); }), HasSubstr("the key 'sub.x' comes twice"));
}

TEST(HfConfig, RefusesDeepNesting) {
  EXPECT_THROW(parse(R"({"a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}"),
               ConfigError);
}

TEST(HfConfig, ChoosesTheNameThatIsPresent) {
  const HfConfig config = parse(R"({"new":1,"old":null})");
  EXPECT_EQ(config.present_of({"old", "new"}), "new");
  EXPECT_EQ(config.present_of({"absent", "old"}), "absent");
}

TEST(HfConfig, ViewsOutliveTheConfigTheyCameFrom) {
  std::optional<HfConfig> inner;
  {
    const HfConfig config = parse(R"({"sub":{"x":5}})");
    inner = config.object("sub");
  }
  EXPECT_EQ(inner->integer("x", {0, 9}), 5);
}

TEST(HfConfig, ReadsAFileAndNamesIt) {
  const TempFolder folder;
  EXPECT_EQ(HfConfig::read(folder.write("config.json", R"({"a":1})")).integer("a", {1, 1}), 1);
  EXPECT_THAT(refusal([&] { HfConfig::read(folder / "none.json"); }),
              HasSubstr((folder / "none.json").string()));
}

TEST(GenerationConfig, ReadsWhatIsThere) {
  const GenerationConfig generation = read_generation_config(
      parse(R"({"bos_token_id":1,"eos_token_id":[2,7],"do_sample":true,"temperature":0.6,
                "top_p":0.95,"top_k":20,"min_p":0.1,"repetition_penalty":1.05,
                "transformers_version":"4.51.0"})"));
  EXPECT_EQ(generation.eos_token_ids, (std::vector<int32_t>{2, 7}));
  EXPECT_EQ(generation.bos_token_id, 1);
  EXPECT_TRUE(generation.do_sample);
  EXPECT_EQ(generation.temperature, 0.6);
  EXPECT_EQ(generation.top_p, 0.95);
  EXPECT_EQ(generation.top_k, 20);
  EXPECT_EQ(generation.min_p, 0.1);
  EXPECT_EQ(generation.repetition_penalty, 1.05);
}

TEST(GenerationConfig, LeavesTheRestAbsent) {
  const GenerationConfig generation = read_generation_config(parse(R"({"eos_token_id":2})"));
  EXPECT_EQ(generation.eos_token_ids, (std::vector<int32_t>{2}));
  EXPECT_FALSE(generation.do_sample);
  EXPECT_FALSE(generation.temperature.has_value());
  EXPECT_FALSE(generation.top_k.has_value());
  const TempFolder folder;
  EXPECT_TRUE(read_generation_config(folder.path()).eos_token_ids.empty());
}

TEST(GenerationConfig, TakesMinusOneAsNoTopK) {
  EXPECT_EQ(read_generation_config(parse(R"({"top_k":-1})")).top_k, 0);
}

TEST(GenerationConfig, RefusesAbsurdSettings) {
  for (const char* json :
       {R"({"temperature":-1})", R"({"temperature":"hot"})", R"({"top_p":0})", R"({"top_p":1.5})",
        R"({"top_k":-2})", R"({"top_k":0.5})", R"({"min_p":2})", R"({"repetition_penalty":0})",
        R"({"eos_token_id":-1})", R"({"eos_token_id":[1,null]})", R"({"bos_token_id":4294967296})",
        R"({"do_sample":"yes"})"}) {
    EXPECT_THROW(read_generation_config(parse(json)), ConfigError) << json;
  }
}

}  // namespace
}  // namespace augur
