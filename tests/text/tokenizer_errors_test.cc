// Files that are no tokenizer, or none we can run: each is refused, and the message says what is
// wrong and where.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "configs/config_error.h"
#include "engine/text/tokenizer.h"
#include "tests/text/tokenizer_test_data.h"

namespace augur {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kModel =
    R"("model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})";

std::string with_model(const std::string& model) {
  return R"({"version": "1.0", "model": )" + model + "}";
}

// A whole tokenizer with this one component.
std::string with(const std::string& key, const std::string& value) {
  return "{\"" + key + "\": " + value + ", " + kModel + "}";
}

std::string error_of(const std::string& json) {
  try {
    Tokenizer::from_json(json, "t.json");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(TokenizerErrors, AcceptsTheFileThatTheOthersAreVariationsOf) {
  EXPECT_EQ(error_of(std::string("{") + kModel + "}"), "accepted");
  const Tokenizer tokenizer = Tokenizer::from_json(std::string("{") + kModel + "}", "t.json");
  EXPECT_EQ(tokenizer.encode("abba"), (std::vector<int32_t>{2, 1, 0}));
}

TEST(TokenizerErrors, RefusesWhatIsNotJson) {
  EXPECT_THAT(error_of(""), HasSubstr("t.json: is not valid JSON"));
  EXPECT_THAT(error_of("hello"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(error_of("\xFF\xFE{}"), HasSubstr("is not valid JSON"));
  EXPECT_THAT(error_of("[1, 2]"), AllOf(HasSubstr("an array"), HasSubstr("expected an object")));
  EXPECT_THAT(error_of("{'model': \"\xC3\"}"), HasSubstr("is not valid JSON"));
}

TEST(TokenizerErrors, RefusesEveryTruncatedFile) {
  const std::string whole = with(
      "pre_tokenizer", R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})");
  ASSERT_EQ(error_of(whole), "accepted");
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_THAT(error_of(whole.substr(0, i)), HasSubstr("is not valid JSON")) << i;
  }
}

TEST(TokenizerErrors, RefusesAMissingModel) {
  EXPECT_THAT(error_of("{}"), HasSubstr("t.json: model: is missing"));
  EXPECT_THAT(error_of(R"({"model": null})"), HasSubstr("model: is missing"));
}

TEST(TokenizerErrors, RefusesWrongTypes) {
  EXPECT_THAT(error_of(R"({"model": 5})"),
              HasSubstr("model: found an integer; expected an object"));
  EXPECT_THAT(error_of(with_model(R"({"type": "BPE", "vocab": [], "merges": []})")),
              HasSubstr("model.vocab: found an array"));
  EXPECT_THAT(error_of(with_model(R"({"type": "BPE", "vocab": {"a": 0}, "merges": {}})")),
              HasSubstr("model.merges: found an object; expected an array"));
  EXPECT_THAT(error_of(with_model(R"({"type": "BPE", "vocab": {"a": 0}})")),
              HasSubstr("model.merges: is missing"));
  EXPECT_THAT(error_of(with_model(R"({"type": 1, "vocab": {"a": 0}, "merges": []})")),
              HasSubstr("model.type: found an integer; expected a string"));
  EXPECT_THAT(error_of(with_model(
                  R"({"type": "BPE", "byte_fallback": 1, "vocab": {"a": 0}, "merges": []})")),
              HasSubstr("model.byte_fallback: found an integer; expected true or false"));
  EXPECT_THAT(error_of(with("added_tokens", R"([{"id": "5", "content": "x"}])")),
              HasSubstr("added_tokens[0].id: found"));
  EXPECT_THAT(error_of(with("added_tokens", R"([7])")), HasSubstr("added_tokens[0]: found an int"));
  EXPECT_THAT(error_of(with("normalizer", "[]")), HasSubstr("normalizer: found an array"));
  EXPECT_THAT(error_of(with("normalizer", R"({"type": "Strip", "strip_left": 1})")),
              HasSubstr("normalizer.strip_left"));
  EXPECT_THAT(error_of(with("version", R"("2.0")")), HasSubstr("version: found '2.0'"));
}

TEST(TokenizerErrors, RefusesOtherModels) {
  for (const std::string type : {"WordPiece", "Unigram", "WordLevel"}) {
    EXPECT_THAT(error_of(with_model(R"({"type": ")" + type + R"(", "vocab": {"a": 0}})")),
                AllOf(HasSubstr("model.type: '" + type + "' is not supported"),
                      HasSubstr("supported: BPE")));
  }
}

TEST(TokenizerErrors, RefusesDropout) {
  EXPECT_THAT(
      error_of(with_model(R"({"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []})")),
      HasSubstr("model.dropout: found 0.1; expected null or 0"));
}

TEST(TokenizerErrors, NamesUnknownComponentsAndTheKnownOnes) {
  for (const std::string key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    EXPECT_THAT(error_of(with(key, R"({"type": "Magic"})")),
                AllOf(HasSubstr(key + ".type: 'Magic' is not supported; supported: "),
                      HasSubstr("Sequence")))
        << key;
    EXPECT_THAT(error_of(with(key, "{}")), HasSubstr(key + ".type: is missing"));
  }
  EXPECT_THAT(error_of(with(
                  "pre_tokenizer",
                  R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "X"}]})")),
              HasSubstr("pre_tokenizer.pretokenizers[1].type: 'X' is not supported"));
}

TEST(TokenizerErrors, RefusesBadPatterns) {
  const auto split = [](const std::string& pattern) {
    return with("pre_tokenizer",
                R"({"type": "Split", "behavior": "Isolated", "pattern": )" + pattern + "}");
  };
  for (const std::string regex : {"(", ")", "[a", "a**{", "*a", "(?<x", "\\\\p{Nonsense}", "[z-a]",
                                  "(?z)", "a{2,1}", "\\\\"}) {
    EXPECT_THAT(error_of(split(R"({"Regex": ")" + regex + "\"}")),
                HasSubstr("pre_tokenizer.pattern.Regex: regular expression"))
        << regex;
  }
  EXPECT_THAT(error_of(split(R"({"Regex": "(?<=a)[a-z&&[^b]]"})")),
              HasSubstr("intersection of classes is not supported"));
  EXPECT_THAT(error_of(split("{}")), HasSubstr("expected the key String or Regex"));
  EXPECT_THAT(error_of(split(R"("x")")), HasSubstr("pattern: found a string"));
  EXPECT_THAT(error_of(with("pre_tokenizer",
                            R"({"type": "Split", "behavior": "Odd", "pattern": {"String": "x"}})")),
              AllOf(HasSubstr("behavior: 'Odd' is not supported"), HasSubstr("Contiguous")));
}

TEST(TokenizerErrors, RefusesBadFieldsOfComponents) {
  EXPECT_THAT(error_of(with("pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})")),
              HasSubstr("replacement: found 'ab'; expected one character"));
  EXPECT_THAT(error_of(with("pre_tokenizer",
                            R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "x"})")),
              HasSubstr("prepend_scheme: 'x' is not supported; supported: always, first, never"));
  EXPECT_THAT(error_of(with("pre_tokenizer",
                            R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first",
                                "add_prefix_space": false})")),
              HasSubstr("contradicts add_prefix_space"));
  EXPECT_THAT(
      error_of(with("decoder", R"({"type": "Strip", "content": " ", "start": -1, "stop": 0})")),
      HasSubstr("decoder.start: found -1; expected an integer from 0"));
  EXPECT_THAT(
      error_of(with("decoder", R"({"type": "Strip", "content": "", "start": 1, "stop": 0})")),
      HasSubstr("decoder.content"));
}

TEST(TokenizerErrors, RefusesBadTemplates) {
  const auto processor = [](const std::string& single, const std::string& tokens) {
    return with("post_processor", R"({"type": "TemplateProcessing", "single": )" + single +
                                      R"(, "special_tokens": )" + tokens + "}");
  };
  const std::string a = R"({"Sequence": {"id": "A", "type_id": 0}})";
  const std::string b = R"({"Sequence": {"id": "B", "type_id": 0}})";
  const std::string s = R"({"SpecialToken": {"id": "s", "type_id": 0}})";
  EXPECT_EQ(error_of(processor("[" + s + "," + a + "]", R"({"s": {"id": "s", "ids": [1]}})")),
            "accepted");
  EXPECT_THAT(error_of(processor("[" + s + "]", R"({"s": {"id": "s", "ids": [1]}})")),
              HasSubstr("post_processor.single: expected the sequence A once"));
  EXPECT_THAT(error_of(processor("[" + a + "," + a + "]", "{}")), HasSubstr("single"));
  EXPECT_THAT(error_of(processor("[" + b + "]", "{}")), HasSubstr("single"));
  EXPECT_THAT(error_of(processor("[" + s + "," + a + "]", "{}")),
              HasSubstr("'s' is not in special_tokens"));
  EXPECT_THAT(error_of(processor("[" + s + "," + a + "]", R"({"s": {"id": "s", "ids": [-1]}})")),
              HasSubstr("expected token ids"));
  EXPECT_THAT(error_of(processor("[" + s + "," + a + "]", R"({"s": {"id": "s", "ids": [3]}})")),
              HasSubstr("adds the id 3, which is no token"));
  EXPECT_THAT(error_of(processor("[5]", "{}")), HasSubstr("single[0]: found an integer"));
  const std::string whole = R"({"type": "TemplateProcessing", "single": [)" + s + "," + a +
                            R"(], "special_tokens": {"s": {"id": "s", "ids": [1]}}})";
  EXPECT_THAT(error_of(with("post_processor", R"({"type": "Sequence", "processors": [)" + whole +
                                                  "," + whole + "]}")),
              HasSubstr("processors[1]: a second TemplateProcessing is not supported"));
}

TEST(TokenizerErrors, RefusesMergesOfUnknownTokens) {
  const auto merges = [](const std::string& list) {
    return with_model(R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": )" + list +
                      "}");
  };
  EXPECT_THAT(error_of(merges(R"(["a b", "a x"])")),
              HasSubstr("model.merges[1]: 'x' is not in the vocabulary"));
  EXPECT_THAT(error_of(merges(R"([["x", "b"]])")), HasSubstr("'x' is not in the vocabulary"));
  EXPECT_THAT(error_of(merges(R"(["b a"])")), HasSubstr("'ba' is not in the vocabulary"));
  for (const std::string bad : {R"(["ab"])", R"(["a b c"])", R"([["a"]])", R"([["a", "b", "c"]])",
                                R"([["a", 1]])", "[5]", "[null]"}) {
    EXPECT_THAT(error_of(merges(bad)),
                AllOf(HasSubstr("model.merges[0]: found "), HasSubstr("expected \"left right\"")))
        << bad;
  }
}

TEST(TokenizerErrors, RefusesMergesShorterThanTheirPrefix) {
  EXPECT_THAT(error_of(with_model(R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
                                      "merges": ["a b"], "continuing_subword_prefix": "##"})")),
              HasSubstr("'b' is shorter than continuing_subword_prefix"));
}

TEST(TokenizerErrors, RefusesBadIds) {
  const auto vocab = [](const std::string& entries) {
    return with_model(R"({"type": "BPE", "merges": [], "vocab": {)" + entries + "}}");
  };
  EXPECT_THAT(error_of(vocab(R"("a": -1)")),
              HasSubstr("model.vocab: token 'a' has the id -1; expected an integer from 0 to "));
  EXPECT_THAT(error_of(vocab(R"("a": 16000000)")), HasSubstr("has the id 16000000"));
  EXPECT_THAT(error_of(vocab(R"("a": 99999999999999999999)")), HasSubstr("t.json: "));
  EXPECT_THAT(error_of(vocab(R"("a": 1.5)")), HasSubstr("has the id 1.5"));
  EXPECT_THAT(error_of(vocab(R"("a": "1")")), HasSubstr("has the id"));
  EXPECT_THAT(error_of(vocab(R"("a": 0, "b": 0)")), HasSubstr("id 0 belongs to both 'a' and 'b'"));
  EXPECT_THAT(error_of(vocab(R"("a": 0, "a": 1)")), HasSubstr("token 'a' comes up twice"));
  EXPECT_THAT(error_of(vocab("")), HasSubstr("holds no tokens"));
}

TEST(TokenizerErrors, RefusesAddedTokensThatContradict) {
  EXPECT_THAT(error_of(with("added_tokens", R"([{"id": -3, "content": "x"}])")),
              HasSubstr("added_tokens[0].id: found -3; expected an integer from 0"));
  EXPECT_THAT(
      error_of(with("added_tokens", R"([{"id": 3, "content": "x"}, {"id": 3, "content": "y"}])")),
      HasSubstr("has the id 3, but so has"));
  EXPECT_THAT(
      error_of(with("added_tokens", R"([{"id": 3, "content": "x"}, {"id": 4, "content": "x"}])")),
      HasSubstr("'x' has the id 4, but it also has the id 3"));
  EXPECT_THAT(error_of(with("added_tokens", R"([{"id": 3, "content": "a"}])")),
              HasSubstr("'a' has the id 3, but the model's vocabulary gives it 0"));
  EXPECT_THAT(error_of(with("added_tokens", R"([{"id": 1, "content": "x"}])")),
              HasSubstr("'x' has the id 1, but the model's vocabulary gives that to 'b'"));
  EXPECT_EQ(error_of(with("added_tokens", R"([{"id": 1, "content": "b"}])")), "accepted");
}

TEST(TokenizerErrors, RefusesAnUnknownTokenThatIsNone) {
  EXPECT_THAT(error_of(with_model(R"({"type": "BPE", "unk_token": "<unk>", "vocab": {"a": 0},
                                      "merges": []})")),
              HasSubstr("model.unk_token: '<unk>' is not in the vocabulary"));
}

TEST(TokenizerErrors, RefusesHugeDepth) {
  const auto nested = [](int depth) {
    std::string normalizer = R"({"type": "NFC"})";
    for (int i = 0; i < depth; ++i) {
      normalizer = R"({"type": "Sequence", "normalizers": [)" + normalizer + "]}";
    }
    return with("normalizer", normalizer);
  };
  EXPECT_EQ(error_of(nested(10)), "accepted");
  EXPECT_THAT(error_of(nested(1000)), HasSubstr("is not valid JSON"));
  const std::string brackets = std::string(2'000'000, '[');
  EXPECT_THAT(error_of(brackets), HasSubstr("is not valid JSON"));
}

TEST(TokenizerErrors, RefusesEndlessSequences) {
  std::string items;
  for (int i = 0; i < 1000; ++i) items += (i == 0 ? "" : ",") + std::string(R"({"type": "NFC"})");
  EXPECT_THAT(
      error_of(with("normalizer", R"({"type": "Sequence", "normalizers": [)" + items + "]}")),
      HasSubstr("more than 64 steps"));
}

TEST(TokenizerErrors, RefusesFilesThatCannotBeRead) {
  const auto error_of_file = [](const std::filesystem::path& path) -> std::string {
    try {
      Tokenizer::from_file(path);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_THAT(error_of_file("/nonexistent/tokenizer.json"),
              AllOf(HasSubstr("/nonexistent/tokenizer.json: "), HasSubstr("No such file")));
  EXPECT_THAT(error_of_file(std::filesystem::temp_directory_path()),
              HasSubstr("is not a regular file"));
  const std::filesystem::path large =
      std::filesystem::temp_directory_path() / "augur_tokenizer_errors_test_large.json";
  std::ofstream(large).put(' ');
  std::filesystem::resize_file(large, Tokenizer::kMaxFileBytes + 1);  // sparse
  EXPECT_THAT(error_of_file(large), HasSubstr("has 268435457 bytes; at most 268435456"));
  std::filesystem::remove(large);
}

}  // namespace
}  // namespace augur
