// What is read as a request, and what is refused.
#include "engine/server/http_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace augur::server {
namespace {

constexpr int64_t kMaxHeaderBytes = 256;
constexpr int64_t kMaxBodyBytes = 100;

struct Parsed {
  int status = 0;  // 0: whole; -1: more is needed
  std::string method;
  std::string path;
  std::string body;
  size_t num_used = 0;

  bool operator==(const Parsed&) const = default;
};

// Feeds `bytes` in pieces of `piece_bytes`.
Parsed parse(const std::string& bytes, size_t piece_bytes) {
  HttpParser parser(kMaxHeaderBytes, kMaxBodyBytes);
  size_t position = 0;
  while (position < bytes.size() && parser.state() < HttpParser::State::kComplete) {
    position += parser.feed(std::string_view(bytes).substr(position, piece_bytes));
  }
  Parsed parsed;
  parsed.num_used = position;
  if (parser.state() == HttpParser::State::kFailed) {
    parsed.status = parser.error().status;
    return parsed;
  }
  if (parser.state() != HttpParser::State::kComplete) parsed.status = -1;
  if (parser.state() >= HttpParser::State::kBody) {
    parsed.method = parser.head().method;
    parsed.path = parser.head().target.path;
  }
  parsed.body = parser.body();
  return parsed;
}

// However the bytes are cut into pieces.
Parsed parse(const std::string& bytes) {
  const Parsed whole = parse(bytes, bytes.size() + 1);
  for (const size_t piece_bytes : {1, 2, 3, 7}) {
    EXPECT_EQ(parse(bytes, piece_bytes), whole) << bytes << " by " << piece_bytes;
  }
  return whole;
}

std::string with_header(const std::string& lines) {
  return "POST /a HTTP/1.1\r\nHost: h\r\n" + lines + "\r\n";
}

TEST(HttpParser, StopsAtTheEndOfARequest) {
  const std::string request = with_header("Content-Length: 3\r\n") + "abc";
  const Parsed parsed = parse(request + "GET /next");
  EXPECT_EQ(parsed.status, 0);
  EXPECT_EQ(parsed.method, "POST");
  EXPECT_EQ(parsed.path, "/a");
  EXPECT_EQ(parsed.body, "abc");
  EXPECT_EQ(parsed.num_used, request.size());
  const std::string chunked =
      with_header("Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n";
  EXPECT_EQ(parse(chunked + "GET /next").num_used, chunked.size());
}

TEST(HttpParser, StopsAtTheEndOfTheHead) {
  HttpParser parser(kMaxHeaderBytes, kMaxBodyBytes);
  const std::string head = with_header("Content-Length: 3\r\n");
  EXPECT_EQ(parser.feed(head + "abc"), head.size());
  EXPECT_EQ(parser.state(), HttpParser::State::kBody);
  EXPECT_TRUE(parser.head().has_body);
  EXPECT_EQ(parser.feed("abcd"), 3U);
  EXPECT_EQ(parser.state(), HttpParser::State::kComplete);
}

TEST(HttpParser, BeginsAnew) {
  HttpParser parser(kMaxHeaderBytes, kMaxBodyBytes);
  parser.feed(with_header("Authorization: Bearer x\r\nContent-Type: a/b\r\n"));
  EXPECT_EQ(parser.head().authorization, "Bearer x");
  parser.reset();
  EXPECT_EQ(parser.state(), HttpParser::State::kIdle);
  parser.feed("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(parser.state(), HttpParser::State::kComplete);
  EXPECT_EQ(parser.head().authorization, "");
  EXPECT_EQ(parser.head().content_type, "");
  EXPECT_TRUE(parser.head().is_http_1_0);
  EXPECT_FALSE(parser.head().keeps_alive);
}

TEST(HttpParser, AcceptsWhatIsAllowed) {
  for (const std::string& request : std::vector<std::string>{
           "GET /a HTTP/1.1\r\nHost:h\r\n\r\n",
           "GET /a HTTP/1.1\r\nhOST: \t h:80 \t\r\n\r\n",
           "GET /a HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
           "GET /a HTTP/1.1\r\nHost:\r\n\r\n",
           "GET /a HTTP/1.0\r\n\r\n",
           "\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
           "GET http://other/a HTTP/1.1\r\nHost: h\r\n\r\n",
           with_header("Content-Length: 0\r\n"),
           with_header("Content-Length: 000\r\n"),
           with_header("X: \xe9t\xe9\r\nY:\r\n"),
           with_header("Transfer-Encoding: CHUNKED\r\n") + "000\r\n\r\n",
           with_header("Transfer-Encoding: chunked\r\n") +
               "0;a;b=\"c\t\\\"d\\\\\"\r\nT: x\r\nU: y\r\n\r\n",
       }) {
    EXPECT_EQ(parse(request).status, 0) << request;
    EXPECT_EQ(parse(request).path, "/a") << request;
  }
}

TEST(HttpParser, RefusesRequestLinesThatAreNone) {
  for (const std::string& line : std::vector<std::string>{"GET /a",
                                                          "GET",
                                                          "",
                                                          "/a HTTP/1.1",
                                                          " GET /a HTTP/1.1",
                                                          "GET  /a HTTP/1.1",
                                                          "GET /a  HTTP/1.1",
                                                          "GET /a HTTP/1.1 ",
                                                          "GET\t/a HTTP/1.1",
                                                          "G(T /a HTTP/1.1",
                                                          "GET /a http/1.1",
                                                          "GET /a HTTP/1",
                                                          "GET /a HTTP/1.",
                                                          "GET /a HTTP/11.1",
                                                          "GET /a HTTP/1.1.1",
                                                          "GET /a HTTPS/1.1",
                                                          "GET /a b HTTP/1.1",
                                                          "GET /a\xc3\xa9 HTTP/1.1",
                                                          "GET /%zz HTTP/1.1",
                                                          "GET /.. HTTP/1.1",
                                                          "GET * HTTP/1.1",
                                                          "CONNECT h:80 HTTP/1.1",
                                                          "GET https://h/a HTTP/1.1",
                                                          "GET /a#b HTTP/1.1",
                                                          "\x16\x03\x01"}) {
    EXPECT_EQ(parse(line + "\r\nHost: h\r\n\r\n\r\n").status, 400) << line;
  }
}

TEST(HttpParser, RefusesOtherVersions) {
  for (const char* version : {"2.0", "3.0", "1.2", "0.9"}) {
    EXPECT_EQ(parse(std::string("GET /a HTTP/") + version + "\r\nHost: h\r\n\r\n").status, 505);
  }
  EXPECT_EQ(parse("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status, 505);
}

TEST(HttpParser, RefusesHeadersThatOthersCouldReadOtherwise) {
  for (const std::string& lines : std::vector<std::string>{
           "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
           "Content-Length: 3\r\nContent-Length: 3\r\n",
           "Content-Length: 3\r\nContent-Length: 4\r\n",
           "Content-Length: 3, 3\r\n",
           "Content-Length: 3,\r\n",
           "Content-Length: +3\r\n",
           "Content-Length: -3\r\n",
           "Content-Length: 0x3\r\n",
           "Content-Length: 3 3\r\n",
           "Content-Length: 3.0\r\n",
           "Content-Length: \r\n",
           "Content-Length: 18446744073709551619\r\n",
           "Content-Length: 9999999999999999999999999\r\n",
           "Transfer-Encoding: gzip\r\n",
           "Transfer-Encoding: gzip, chunked\r\n",
           "Transfer-Encoding: chunked, gzip\r\n",
           "Transfer-Encoding: chunked, chunked\r\n",
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
           "Transfer-Encoding: identity\r\n",
           "Transfer-Encoding: xchunked\r\n",
           "Transfer-Encoding: chunked;a=b\r\n",
           "Transfer-Encoding: \"chunked\"\r\n",
           "Transfer-Encoding:\x0b"
           "chunked\r\n",
           "Transfer-Encoding:\r\n chunked\r\n",
           "Transfer-Encoding : chunked\r\n",
           "Transfer-Encoding\t: chunked\r\n",
           "Content-Length : 3\r\n",
           " Content-Length: 3\r\n",
           "X: a\r\n b\r\n",
           "X: a\r\n\tb\r\n",
           "X: a\nContent-Length: 3\r\n",
           "X: a\rContent-Length: 3\r\n",
           "X: a\r\r\n",
           "X: a\x01\r\n",
           "X: a\x7f\r\n",
           std::string("X: a\0b\r\n", 8),
           "X\r\n",
           ": x\r\n",
           "X Y: x\r\n",
           "X\xc3\xa9: x\r\n",
           "X(: x\r\n",
           "Host: h\r\n",
           "Host: other\r\n",
           "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
       }) {
    EXPECT_EQ(parse(with_header(lines) + "3\r\nabc\r\n0\r\n\r\n").status, 400) << lines;
  }
}

TEST(HttpParser, RefusesHostsThatAreNone) {
  EXPECT_EQ(parse("GET /a HTTP/1.1\r\n\r\n").status, 400);
  for (const char* host : {"a b", "a/b", "a@b", "a,b", "a?b", "a\\b", "<a>"}) {
    EXPECT_EQ(parse(std::string("GET /a HTTP/1.1\r\nHost: ") + host + "\r\n\r\n").status, 400)
        << host;
  }
}

TEST(HttpParser, RefusesLineEndsOfOneCharacter) {
  for (const char* request :
       {"GET /a HTTP/1.1\nHost: h\n\n", "GET /a HTTP/1.1\rHost: h\r\r", "\nGET /a HTTP/1.1\r\n",
        "\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a HTTP/1.1\r\nHost: h\r\n\n"}) {
    EXPECT_EQ(parse(request).status, 400) << request;
  }
}

TEST(HttpParser, RefusesEncodingsInHttp10) {
  EXPECT_EQ(parse("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").status, 400);
}

TEST(HttpParser, RefusesOtherExpectations) {
  EXPECT_EQ(parse(with_header("Expect: coffee\r\nContent-Length: 1\r\n") + "x").status, 417);
}

TEST(HttpParser, RefusesBrokenChunks) {
  for (const std::string& body : std::vector<std::string>{"\r\n",
                                                          "g\r\n",
                                                          "-1\r\n",
                                                          "+1\r\nx\r\n",
                                                          "0x1\r\nx\r\n",
                                                          " 1\r\nx\r\n",
                                                          "1 \r\nx\r\n",
                                                          "1\nx\r\n",
                                                          "1\r\nxy\r\n",
                                                          "1\r\nx\n0\r\n\r\n",
                                                          "1\r\nx\r0\r\n\r\n",
                                                          ";a\r\n",
                                                          "1;a\nb\r\nx\r\n",
                                                          "1;a=\"\n\"\r\nx\r\n",
                                                          "1;a\rb\r\nx\r\n",
                                                          "1;a=\"b\r\nx\r\n",
                                                          "1;a=\"b\\\"\r\nx\r\n",
                                                          std::string("1;a\0\r\nx\r\n", 10),
                                                          "0000000000000001\r\nx\r\n",
                                                          "ffffffffffffffff\r\n",
                                                          "10000000000000001\r\nx\r\n",
                                                          "0\r\n T: x\r\n\r\n",
                                                          "0\r\nT: x\r\n y\r\n\r\n",
                                                          "0\r\nT: x\n\r\n",
                                                          "0\r\n\rx",
                                                          "0\r\n\n"}) {
    EXPECT_EQ(parse(with_header("Transfer-Encoding: chunked\r\n") + body).status, 400) << body;
  }
}

TEST(HttpParser, BoundsTheHeader) {
  const std::string empty = with_header("X: \r\n");
  const auto padded = [&](size_t size) {
    return with_header("X: " + std::string(size - empty.size(), 'x') + "\r\n");
  };
  EXPECT_EQ(parse(padded(kMaxHeaderBytes)).status, 0);
  const Parsed refused = parse(padded(kMaxHeaderBytes + 1));
  EXPECT_EQ(refused.status, 431);
  EXPECT_EQ(refused.num_used, static_cast<size_t>(kMaxHeaderBytes) + 1) << "no more is taken";
  EXPECT_EQ(parse("GET /" + std::string(kMaxHeaderBytes, 'a')).status, 431);
}

TEST(HttpParser, BoundsTheBody) {
  const std::string full(kMaxBodyBytes, 'x');
  EXPECT_EQ(parse(with_header("Content-Length: 100\r\n") + full).body, full);
  EXPECT_EQ(parse(with_header("Content-Length: 101\r\n")).status, 413) << "before it comes";
  EXPECT_EQ(parse(with_header("Content-Length: 999999999999999999\r\n")).status, 413);
  const std::string chunked = with_header("Transfer-Encoding: chunked\r\n");
  EXPECT_EQ(parse(chunked + "64\r\n" + full + "\r\n0\r\n\r\n").body, full);
  EXPECT_EQ(parse(chunked + "65\r\n").status, 413) << "before it comes";
  EXPECT_EQ(parse(chunked + "64\r\n" + full + "\r\n1\r\n").status, 413);
  EXPECT_EQ(parse(chunked + "fffffffffffffff\r\n").status, 413);
}

TEST(HttpParser, BoundsWhatChunksCarryBesides) {
  const std::string chunked = with_header("Transfer-Encoding: chunked\r\n");
  const std::string extra(kMaxHeaderBytes + 1, 'e');
  EXPECT_EQ(parse(chunked + "1;" + extra).status, 431);
  EXPECT_EQ(parse(chunked + "0\r\n" + extra).status, 431);
  std::string many;
  for (int64_t i = 0; i < kMaxHeaderBytes / 10 + 1; ++i) many += "1;eeeeeeeeee\r\nx\r\n";
  EXPECT_EQ(parse(chunked + many).status, 431) << "all of them together";
}

TEST(HttpParser, TellsWhatTheClientExpects) {
  HttpParser parser(kMaxHeaderBytes, kMaxBodyBytes);
  parser.feed(with_header("Expect: 100-Continue\r\nContent-Length: 3\r\nConnection: close\r\n"));
  EXPECT_TRUE(parser.head().expects_continue);
  EXPECT_FALSE(parser.head().keeps_alive);
  parser.reset();
  parser.feed(with_header("Expect: 100-continue\r\n"));
  EXPECT_FALSE(parser.head().expects_continue) << "there is no body to wait for";
  EXPECT_TRUE(parser.head().keeps_alive);
}

}  // namespace
}  // namespace augur::server
