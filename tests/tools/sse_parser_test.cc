#include "tools/serve_bench/sse_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace augur::serve_bench {
namespace {

using testing::ElementsAre;
using Events = std::vector<std::string>;

void take_all(SseParser& parser, Events& events) {
  while (const auto data = parser.next()) events.emplace_back(*data);
}

Events events_of(const std::vector<std::string_view>& pieces) {
  SseParser parser;
  Events events;
  for (const std::string_view piece : pieces) {
    parser.feed(piece);
    take_all(parser, events);
  }
  return events;
}

// One stream with everything in it.
constexpr std::string_view kStream =
    "\xEF\xBB\xBF"
    "data: one\n\n"
    ": a comment\n"
    "event: message\r\n"
    "data:two\r\n"
    "data: lines\r\n"
    "\r\n"
    "\n\n"
    "data:  blank kept\r"
    "id: 7\r"
    "\r"
    "data\n"
    "data:\n\n"
    "database: another field\n\n"
    "data: {\"a\":1}\n\n"
    "data: never finished\n";

const Events& expected() {
  static const Events events{"one", "two\nlines", " blank kept", "\n", "{\"a\":1}"};
  return events;
}

TEST(SseParser, ReadsAStreamGivenAtOnce) {
  EXPECT_EQ(events_of({kStream}), expected());
}

TEST(SseParser, ReadsTheSameFromEverySplitInTwo) {
  for (size_t i = 0; i <= kStream.size(); ++i)
    EXPECT_EQ(events_of({kStream.substr(0, i), kStream.substr(i)}), expected()) << i;
}

TEST(SseParser, ReadsTheSameFromEverySplitInThree) {
  for (size_t i = 0; i <= kStream.size(); ++i)
    for (size_t j = i; j <= kStream.size(); ++j)
      ASSERT_EQ(events_of({kStream.substr(0, i), kStream.substr(i, j - i), kStream.substr(j)}),
                expected())
          << i << " " << j;
}

TEST(SseParser, ReadsTheSameByteByByte) {
  std::vector<std::string_view> pieces;
  for (size_t i = 0; i < kStream.size(); ++i) pieces.push_back(kStream.substr(i, 1));
  EXPECT_EQ(events_of(pieces), expected());
}

TEST(SseParser, GivesAnEventAtItsBlankLineAndNotBefore) {
  SseParser parser;
  parser.feed("data: a\n");
  EXPECT_EQ(parser.next(), std::nullopt);
  parser.feed("\n");
  EXPECT_EQ(parser.next(), "a");
  parser.feed("data: b\r\n\r");
  EXPECT_EQ(parser.next(), "b");
  parser.feed("\ndata: c\n\n");
  EXPECT_EQ(parser.next(), "c");
  EXPECT_EQ(parser.next(), std::nullopt);
}

TEST(SseParser, StopsAtAnEventThatNeverEnds) {
  SseParser parser;
  const std::string piece(1 << 20, 'x');
  parser.feed("data: a\n\ndata: ");
  EXPECT_EQ(parser.next(), "a");
  for (size_t i = 0; i <= SseParser::kMaxEventBytes / piece.size(); ++i) parser.feed(piece);
  EXPECT_EQ(parser.next(), std::nullopt);
  EXPECT_TRUE(parser.is_overlong());
}

TEST(SseParser, StopsAtAnEventOfTooManyLines) {
  SseParser parser;
  const std::string line = "data: " + std::string(1 << 20, 'x') + "\n";
  for (size_t i = 0; i <= SseParser::kMaxEventBytes / line.size() + 1; ++i) {
    parser.feed(line);
    EXPECT_EQ(parser.next(), std::nullopt);
  }
  EXPECT_TRUE(parser.is_overlong());
}

TEST(SseParser, BeginsAnewAfterReset) {
  SseParser parser;
  parser.feed("data: half\n");
  EXPECT_EQ(parser.next(), std::nullopt);
  parser.reset();
  parser.feed("data: whole\n\n");
  EXPECT_EQ(parser.next(), "whole");
}

}  // namespace
}  // namespace augur::serve_bench
