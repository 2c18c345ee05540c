#include "tools/serve_bench/response_parser.h"

#include <gtest/gtest.h>

#include <vector>

namespace augur::serve_bench {
namespace {

struct Parsed {
  ResponseParser parser;
  std::string body;
  bool is_well_formed = true;
};

Parsed parse(const std::vector<std::string_view>& pieces) {
  Parsed parsed;
  for (const std::string_view piece : pieces)
    parsed.is_well_formed = parsed.is_well_formed && parsed.parser.feed(piece, parsed.body);
  return parsed;
}

TEST(ResponseParser, ReadsABodyOfAGivenLength) {
  const Parsed parsed = parse({"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"});
  EXPECT_TRUE(parsed.is_well_formed && parsed.parser.is_done());
  EXPECT_EQ(parsed.parser.head().status, 200);
  EXPECT_TRUE(parsed.parser.head().keeps_alive);
  EXPECT_FALSE(parsed.parser.has_excess());
  EXPECT_EQ(parsed.body, "hello");
}

constexpr std::string_view kChunked =
    "HTTP/1.1 100 Continue\r\n\r\n"
    "HTTP/1.1 429 Too Many Requests\r\n"
    "content-type: TEXT/event-stream; charset=utf-8\r\n"
    "Retry-After:  7 \r\n"
    "TRANSFER-ENCODING: Chunked\r\n"
    "\r\n"
    "5;name=value\r\nhello\r\n"
    "0A\r\n, world!!\n\r\n"
    "0\r\n"
    "X-Trailer: 1\r\n"
    "\r\n";

void expect_chunked(const Parsed& parsed) {
  ASSERT_TRUE(parsed.is_well_formed) << parsed.parser.error();
  EXPECT_TRUE(parsed.parser.is_done());
  EXPECT_EQ(parsed.body, "hello, world!!\n");
  EXPECT_EQ(parsed.parser.head().status, 429);
  EXPECT_EQ(parsed.parser.head().retry_after_s, 7);
  EXPECT_TRUE(parsed.parser.head().is_event_stream);
  EXPECT_TRUE(parsed.parser.head().keeps_alive);
}

TEST(ResponseParser, ReadsChunksFromEverySplit) {
  for (size_t i = 0; i <= kChunked.size(); ++i)
    for (size_t j = i; j <= kChunked.size(); j += 7)
      expect_chunked(parse({kChunked.substr(0, i), kChunked.substr(i, j - i), kChunked.substr(j)}));
}

TEST(ResponseParser, ReadsChunksByteByByte) {
  std::vector<std::string_view> pieces;
  for (size_t i = 0; i < kChunked.size(); ++i) pieces.push_back(kChunked.substr(i, 1));
  expect_chunked(parse(pieces));
}

TEST(ResponseParser, IsDoneAtTheLastByteAndNotBefore) {
  ResponseParser parser;
  std::string body;
  ASSERT_TRUE(parser.feed(kChunked.substr(0, kChunked.size() - 1), body));
  EXPECT_FALSE(parser.is_done());
  EXPECT_FALSE(parser.end_of_input());
  ASSERT_TRUE(parser.feed(kChunked.substr(kChunked.size() - 1), body));
  EXPECT_TRUE(parser.is_done());
}

TEST(ResponseParser, TakesTheEndOfTheConnectionForTheEndOfABodyWithoutLength) {
  Parsed parsed = parse({"HTTP/1.1 200 OK\r\n\r\n", "some", " text"});
  EXPECT_FALSE(parsed.parser.is_done());
  EXPECT_TRUE(parsed.parser.end_of_input());
  EXPECT_EQ(parsed.body, "some text");
  EXPECT_FALSE(parsed.parser.head().keeps_alive);
}

TEST(ResponseParser, NoticesABodyThatEndsEarly) {
  Parsed parsed = parse({"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"});
  EXPECT_FALSE(parsed.parser.end_of_input());
}

TEST(ResponseParser, KnowsWhichConnectionsMayBeKept) {
  EXPECT_FALSE(parse({"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n"})
                   .parser.head()
                   .keeps_alive);
  EXPECT_FALSE(parse({"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"}).parser.head().keeps_alive);
  EXPECT_TRUE(parse({"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"})
                  .parser.head()
                  .keeps_alive);
  EXPECT_TRUE(
      parse({"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200"}).parser.has_excess());
}

TEST(ResponseParser, NeedsNoBodyForNoContent) {
  EXPECT_TRUE(parse({"HTTP/1.1 204 No Content\r\n\r\n"}).parser.is_done());
}

TEST(ResponseParser, RefusesWhatIsNoHttp) {
  for (const std::string_view text :
       {"SSH-2.0-OpenSSH\r\n", "HTTP/2 200\r\n", "HTTP/1.1 OK\r\n", "HTTP/1.1 099 Low\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n", "HTTP/1.1 200 OK\r\n: no name\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        "HTTP/1.1 101 Switching\r\n\r\n"}) {
    const Parsed parsed = parse({text});
    EXPECT_FALSE(parsed.is_well_formed) << text;
    EXPECT_FALSE(parsed.parser.error().empty()) << text;
  }
}

TEST(ResponseParser, RefusesAHeaderWithoutEnd) {
  const std::string line(2 * ResponseParser::kMaxHeadBytes, 'x');
  EXPECT_FALSE(parse({"HTTP/1.1 200 OK\r\nX: ", line}).is_well_formed);
  ResponseParser parser;
  std::string body;
  bool is_well_formed = parser.feed("HTTP/1.1 200 OK\r\n", body);
  for (size_t i = 0; i < ResponseParser::kMaxHeadBytes && is_well_formed; ++i)
    is_well_formed = parser.feed("X: 1\r\n", body);
  EXPECT_FALSE(is_well_formed);
}

}  // namespace
}  // namespace augur::serve_bench
