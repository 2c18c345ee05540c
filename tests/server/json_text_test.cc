#include "engine/server/json_text.h"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "engine/text/utf8.h"

namespace augur::server {
namespace {

namespace json = boost::json;

std::string in_json(std::string_view text) {
  std::string out;
  append_json_string(text, out);
  return out;
}

std::string as_logprob(float value) {
  std::string out;
  append_json_logprob(value, out);
  return out;
}

TEST(JsonTextTest, ReadsBackEveryCharacterOfOneByte) {
  for (int byte = 0; byte < 128; ++byte) {
    const std::string text{'x', static_cast<char>(byte), 'y'};
    EXPECT_EQ(json::parse(in_json(text)), json::value(text)) << byte;
  }
}

TEST(JsonTextTest, EscapesAsTheLibraryDoes) {
  const std::string text = "a\"b\\c/\b\f\n\r\t\x01\x1f\x7f \u00e9\u4f60\U0001F600";
  EXPECT_EQ(json::parse(in_json(text)), json::value(text));
  EXPECT_EQ(in_json("\"\\\n"), R"("\"\\\n")");
  EXPECT_EQ(in_json(std::string_view("\0", 1)), "\"\\u0000\"");
}

TEST(JsonTextTest, IsValidJsonWhateverTheBytes) {
  std::mt19937 random(7);
  constexpr std::string_view kBytes = "ab\"\\\n\x01\x80\xBF\xC3\xA9\xE4\xBD\xA0\xF0\x9F\xED\xFF";
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (int k = static_cast<int>(random() % 12); k > 0; --k) {
      text.push_back(kBytes[random() % kBytes.size()]);
    }
    std::string storage;
    const std::string repaired(valid_utf8_or_repaired(text, storage));
    ASSERT_EQ(json::parse(in_json(text)), json::value(repaired));
  }
}

TEST(JsonTextTest, JoinsPiecesToTheWhole) {
  const std::string text = "one \"two\"\n\u00e9\u00e9";
  std::string pieces;
  append_json_characters(std::string_view(text).substr(0, 6), pieces);
  append_json_characters(std::string_view(text).substr(6), pieces);
  EXPECT_EQ("\"" + pieces + "\"", in_json(text));
}

TEST(JsonTextTest, WritesLogprobsThatReadBackTheSame) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> exponent(-30, 8);
  for (int i = 0; i < 2000; ++i) {
    const float value = -std::exp(exponent(random));
    const json::value read = json::parse(as_logprob(value));
    ASSERT_EQ(static_cast<float>(read.to_number<double>()), value) << as_logprob(value);
  }
  EXPECT_EQ(as_logprob(0), "0");
}

TEST(JsonTextTest, WritesWhatIsNoNumberAsTheLowestLogprob) {
  EXPECT_EQ(as_logprob(-std::numeric_limits<float>::infinity()), "-9999");
  EXPECT_EQ(as_logprob(std::numeric_limits<float>::quiet_NaN()), "-9999");
  EXPECT_EQ(as_logprob(-1e30f), "-9999");
}

TEST(JsonTextTest, WritesLists) {
  std::string out;
  append_json_integers({}, out);
  EXPECT_EQ(out, "");
  append_json_integers(std::vector<int32_t>{0, -1, 2147483647}, out);
  EXPECT_EQ(out, "0,-1,2147483647");
}

}  // namespace
}  // namespace augur::server
