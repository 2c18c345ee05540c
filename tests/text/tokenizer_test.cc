// The tokenizer against what the Hugging Face tokenizers package computes. data/README.md says
// where the expected values come from.
#include "engine/text/tokenizer.h"

#include <gtest/gtest.h>
#include <simdjson.h>

#include <atomic>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/text/detokenizer.h"
#include "tests/text/tokenizer_test_data.h"

namespace augur {
namespace {

using simdjson::dom::element;

std::string decode_as_stream(const Tokenizer& tokenizer,
                             const std::vector<int32_t>& ids,
                             bool skip_special_tokens) {
  Detokenizer detokenizer(tokenizer, skip_special_tokens);
  std::string text;
  for (size_t i = 0; i <= ids.size(); ++i) {
    const std::string part = i < ids.size() ? detokenizer.push(ids[i]) : detokenizer.finish();
    EXPECT_TRUE(simdjson::validate_utf8(part)) << "half a character after " << i << " tokens";
    text += part;
  }
  return text;
}

// --- The six pipelines ---

class PipelineTest : public ::testing::TestWithParam<const char*> {
 protected:
  PipelineTest()
      : tokenizer_(Tokenizer::from_file(data_path(file_name(".json")))),
        expected_(parser_.load(data_path(file_name(".expected.json")).string())
                      .value()
                      .get_array()
                      .value()) {}
  static std::string file_name(const std::string& suffix) {
    return std::string("tokenizers/") + GetParam() + suffix;
  }
  // What `decoded` in the expected values was made with.
  static bool skips_special_tokens() { return std::string(GetParam()) == "llama2_like"; }

  simdjson::dom::parser parser_;
  Tokenizer tokenizer_;
  simdjson::dom::array expected_;
};

TEST_P(PipelineTest, EncodesAsTheReference) {
  ASSERT_EQ(expected_.size(), 88u);
  for (const element item : expected_) {
    EXPECT_EQ(tokenizer_.encode(to_text(item["text"])), to_ids(item["ids"])) << item["text"];
  }
}

TEST_P(PipelineTest, DecodesAsTheReference) {
  for (const element item : expected_) {
    EXPECT_EQ(tokenizer_.decode(to_ids(item["ids"]), skips_special_tokens()),
              to_text(item["decoded"]));
  }
}

TEST_P(PipelineTest, StreamsWhatItDecodes) {
  for (const element item : expected_) {
    const std::vector<int32_t> ids = to_ids(item["ids"]);
    for (const bool skip : {false, true}) {
      EXPECT_EQ(decode_as_stream(tokenizer_, ids, skip), tokenizer_.decode(ids, skip));
    }
  }
}

TEST_P(PipelineTest, StreamsWhatItDecodesForRandomIds) {
  std::mt19937 generator(1);
  std::uniform_int_distribution<int32_t> any_id(-1, tokenizer_.vocab_size());
  for (int i = 0; i < 300; ++i) {
    std::vector<int32_t> ids(1 + i % 40);
    for (int32_t& id : ids) id = any_id(generator);
    for (const bool skip : {false, true}) {
      EXPECT_EQ(decode_as_stream(tokenizer_, ids, skip), tokenizer_.decode(ids, skip));
    }
  }
}

TEST_P(PipelineTest, KeepsItsTokensAndIdsInStep) {
  for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
    const std::string_view token = tokenizer_.id_to_token(id);
    if (!token.empty()) {
      EXPECT_EQ(tokenizer_.token_to_id(token), id);
    }
  }
  EXPECT_EQ(tokenizer_.id_to_token(-1), "");
  EXPECT_EQ(tokenizer_.id_to_token(tokenizer_.vocab_size()), "");
  EXPECT_EQ(tokenizer_.token_to_id("no such token"), std::nullopt);
}

INSTANTIATE_TEST_SUITE_P(All,
                         PipelineTest,
                         ::testing::Values("gpt2_like",
                                           "gpt4_like",
                                           "o200k_like",
                                           "qwen_like",
                                           "deepseek_like",
                                           "llama2_like"),
                         [](const auto& info) { return std::string(info.param); });

// --- Components ---

// The tokenizer of a case, with the placeholder for its vocabulary of 256 bytes filled in.
std::string tokenizer_json(element item) {
  std::string json = simdjson::minify(item["tokenizer"]);
  const std::string placeholder = "\"BYTES\"";
  const size_t at = json.find(placeholder);
  if (at == std::string::npos) return json;
  std::string vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    char entry[32];
    std::snprintf(entry, sizeof(entry), "%c\"<0x%02X>\":%d", byte == 0 ? '{' : ',', byte, byte);
    vocabulary += entry;
  }
  return json.replace(at, placeholder.size(), vocabulary + "}");
}

// Ids of the byte vocabulary as the bytes they are; others as [id].
std::string spell(const std::vector<int32_t>& ids) {
  std::string text;
  for (const int32_t id : ids) {
    if (id < 256) {
      text.push_back(static_cast<char>(id));
    } else {
      text.append("[").append(std::to_string(id)).append("]");
    }
  }
  return text;
}

TEST(TokenizerComponents, DoAsTheReference) {
  simdjson::dom::parser parser;
  const simdjson::dom::array cases =
      parser.load(data_path("tokenizer_cases.json").string()).value().get_array().value();
  std::map<std::string, int> num_checks;
  for (const element item : cases) {
    const std::string name = to_text(item["name"]);
    SCOPED_TRACE(name);
    const Tokenizer tokenizer = Tokenizer::from_json(tokenizer_json(item), name);
    for (const char* key : {"spelled", "encoded", "decoded"}) {
      simdjson::dom::array rows;
      if (item[key].get(rows) != simdjson::SUCCESS) continue;
      for (const element row : rows) {
        ++num_checks[key];
        const std::string kind = key;
        if (kind == "spelled") {
          EXPECT_EQ(spell(tokenizer.encode(to_text(row.at(0)), false)), to_text(row.at(1))) << row;
        } else if (kind == "encoded") {
          EXPECT_EQ(tokenizer.encode(to_text(row.at(0))), to_ids(row.at(1))) << row;
          EXPECT_EQ(tokenizer.encode(to_text(row.at(0)), false), to_ids(row.at(2))) << row;
        } else {
          const std::vector<int32_t> ids = to_ids(row.at(0));
          EXPECT_EQ(tokenizer.decode(ids, true), to_text(row.at(1))) << row;
          EXPECT_EQ(tokenizer.decode(ids, false), to_text(row.at(2))) << row;
          EXPECT_EQ(decode_as_stream(tokenizer, ids, true), to_text(row.at(1))) << row;
          EXPECT_EQ(decode_as_stream(tokenizer, ids, false), to_text(row.at(2))) << row;
        }
      }
    }
  }
  EXPECT_GT(num_checks["spelled"], 2000);
  EXPECT_GT(num_checks["encoded"], 150);
  EXPECT_GT(num_checks["decoded"], 1000);
}

// --- The demo model's tokenizer ---

class DemoTokenizerTest : public ::testing::Test {
 protected:
  const Tokenizer tokenizer_ = Tokenizer::from_file(demo_tokenizer_path());
};

TEST_F(DemoTokenizerTest, GivesTheTokensThatTheModelWasScoredOn) {
  simdjson::dom::parser text_parser;
  simdjson::dom::parser parser;
  const simdjson::dom::array expected =
      parser.load(data_path("eval_tokens.json").string()).value().get_array().value();
  size_t i = 0;
  simdjson::dom::document_stream documents =
      text_parser.load_many(std::string(AUGUR_SOURCE_DIR "/tests/data/eval.jsonl")).value();
  for (const element document : documents) {
    const element row = expected.at(i++);
    ASSERT_EQ(to_text(document["id"]), to_text(row["id"]));
    std::vector<int32_t> ids = tokenizer_.encode(to_text(document["text"]));
    EXPECT_EQ(tokenizer_.decode(ids, false), to_text(document["text"]));
    ids.resize(std::min<size_t>(ids.size(), 1024));
    EXPECT_EQ(static_cast<int64_t>(ids.size()), int64_t{row["num_tokens"]});
    ids.resize(std::min<size_t>(ids.size(), 8));
    EXPECT_EQ(ids, to_ids(row["first_ids"]));
  }
  EXPECT_EQ(i, 88u);
}

TEST_F(DemoTokenizerTest, KnowsItsSpecialTokens) {
  EXPECT_EQ(tokenizer_.vocab_size(), 8192);
  EXPECT_EQ(tokenizer_.token_to_id("<|user|>"), 8189);
  EXPECT_EQ(tokenizer_.id_to_token(8189), "<|user|>");
  EXPECT_TRUE(tokenizer_.is_special(8189));
  EXPECT_FALSE(tokenizer_.is_special(0));
  EXPECT_FALSE(tokenizer_.is_special(-1));
  EXPECT_FALSE(tokenizer_.is_special(8192));
  const std::vector<int32_t> ids = tokenizer_.encode("<|user|>hi");
  EXPECT_EQ(ids[0], 8189);
  EXPECT_EQ(tokenizer_.decode(ids), "hi");
  EXPECT_EQ(tokenizer_.decode(ids, /*skip_special_tokens=*/false), "<|user|>hi");
}

TEST_F(DemoTokenizerTest, RepairsTextThatIsNotUtf8) {
  const std::pair<std::string, std::string> cases[] = {
      {"a\xFF"
       "b",
       "a\uFFFD"
       "b"},                                       // never valid
      {"\xE4\xBD", "\uFFFD"},                      // cut off
      {"\xE4\xBDz\xE4\xBD\xA0", "\uFFFDz\u4F60"},  // cut off, then whole
      {"\xC0\x80", "\uFFFD\uFFFD"},                // overlong
      {"\xED\xA0\x80", "\uFFFD\uFFFD\uFFFD"},      // a surrogate
      {"\xF0\x9F\x99\xF0\x9F\x99\x82", "\uFFFD\U0001F642"},
      {"\xF4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},  // past U+10FFFF
      {"\x80\xBF", "\uFFFD\uFFFD"}};
  for (const auto& [broken, repaired] : cases) {
    EXPECT_EQ(tokenizer_.encode(broken), tokenizer_.encode(repaired)) << repaired;
  }
}

TEST_F(DemoTokenizerTest, RestoresEveryWellFormedText) {
  std::mt19937 generator(3);
  std::uniform_int_distribution<int> length(0, 60);
  for (int i = 0; i < 500; ++i) {
    std::string bytes(length(generator), '\0');
    for (char& byte : bytes) byte = static_cast<char>(generator());
    const std::string repaired = tokenizer_.decode(tokenizer_.encode(bytes), false);
    EXPECT_TRUE(simdjson::validate_utf8(repaired));
    EXPECT_EQ(tokenizer_.decode(tokenizer_.encode(repaired), false), repaired);
  }
}

TEST_F(DemoTokenizerTest, HoldsBackACharacterUntilItIsWhole) {
  const std::vector<int32_t> ids = tokenizer_.encode("\U0001F9FF!");
  ASSERT_GT(ids.size(), 2u) << "the emoji should take several tokens";
  Detokenizer detokenizer(tokenizer_);
  std::vector<std::string> parts;
  for (const int32_t id : ids) parts.push_back(detokenizer.push(id));
  for (size_t i = 0; i + 2 < parts.size(); ++i) EXPECT_EQ(parts[i], "");
  EXPECT_EQ(parts[parts.size() - 2], "\U0001F9FF");
  EXPECT_EQ(parts.back(), "!");
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST_F(DemoTokenizerTest, EndsAStreamWithAReplacementForHalfACharacter) {
  const std::vector<int32_t> ids = tokenizer_.encode("\U0001F9FF");
  Detokenizer detokenizer(tokenizer_);
  EXPECT_EQ(detokenizer.push(ids[0]), "");
  EXPECT_EQ(detokenizer.finish(), "\uFFFD");
}

TEST_F(DemoTokenizerTest, EncodesTheSameFromManyThreads) {
  const std::string text = eval_text();
  const std::vector<int32_t> expected = tokenizer_.encode(text);
  std::atomic<int> num_different = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      if (tokenizer_.encode(text) != expected) ++num_different;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_different, 0);
}

TEST_F(DemoTokenizerTest, SurvivesBeingMoved) {
  Tokenizer first = Tokenizer::from_file(demo_tokenizer_path());
  Detokenizer detokenizer(first);
  const Tokenizer second = std::move(first);
  const std::vector<int32_t> ids = second.encode("moved <|user|>");
  EXPECT_EQ(ids, tokenizer_.encode("moved <|user|>"));
  std::string text;
  for (const int32_t id : ids) text += detokenizer.push(id);
  EXPECT_EQ(text + detokenizer.finish(), "moved ");
}

// --- Long inputs ---

class LongInputTest : public ::testing::TestWithParam<const char*> {};

// A quadratic step would take minutes on any of these.
TEST_P(LongInputTest, TakesLongWordsInItsStride) {
  const Tokenizer tokenizer =
      Tokenizer::from_file(data_path(std::string("tokenizers/") + GetParam() + ".json"));
  constexpr size_t kNumBytes = 1 << 18;
  for (const std::string unit : {"x", "ab", " ", "\n", " \n", "A", "!", "0", "\u00e9", "\u4f60",
                                 "e\u0301", "\u0301\u0316", "<|user|", "'s"}) {
    std::string text;
    while (text.size() < kNumBytes) text += unit;
    const std::vector<int32_t> ids = tokenizer.encode(text, false);
    EXPECT_FALSE(ids.empty());
    if (std::string(GetParam()) != "qwen_like") {  // which normalizes
      EXPECT_EQ(tokenizer.decode(ids, false), text) << unit;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All,
                         LongInputTest,
                         ::testing::Values("gpt2_like",
                                           "gpt4_like",
                                           "o200k_like",
                                           "qwen_like",
                                           "deepseek_like",
                                           "llama2_like"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace augur
