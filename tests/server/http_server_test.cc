// What well-behaved clients get.
#include "engine/server/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "configs/config_error.h"
#include "engine/server/api_error.h"
#include "tests/server/raw_client.h"
#include "tests/server/running_server.h"
#include "tests/temp_folder.h"

namespace augur::server {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

TEST(HttpServer, AnswersAGetAndKeepsTheConnection) {
  RunningServer server(echo);
  RawClient client(server.port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.send("GET //v1/./models?limit=1 HTTP/1.1\r\nHost: localhost:80\r\n\r\n"));
    const RawResponse response = client.read_response();
    EXPECT_EQ(response.status_line, "HTTP/1.1 200 OK\r\n");
    EXPECT_EQ(response.body, "GET\n/v1/models\nlimit=1\n\n");
    EXPECT_EQ(response.header("server"), "augur");
    EXPECT_EQ(response.header("content-type"), "text/plain");
    EXPECT_FALSE(response.has("connection"));
    EXPECT_THAT(response.header("date"),
                MatchesRegex("[A-Z][a-z][a-z], [0-9][0-9] [A-Z][a-z][a-z] [0-9]+ "
                             "[0-9][0-9]:[0-9][0-9]:[0-9][0-9] GMT"));
  }
  const HttpCounters counters = server.counters();
  EXPECT_EQ(counters.connections, 1);
  EXPECT_EQ(counters.requests, 3);
  EXPECT_EQ(counters.open_connections, 1);
  EXPECT_GT(counters.bytes_sent, 0);
}

TEST(HttpServer, TakesABodyByLengthAndInChunks) {
  RunningServer server(echo);
  RawClient client(server.port());
  ASSERT_TRUE(
      client.send("POST /p HTTP/1.1\r\nHost: h\r\nContent-Type: Application/JSON; charset=utf-8\r\n"
                  "Content-Length: 5\r\n\r\nhello"));
  EXPECT_EQ(client.read_response().body, "POST\n/p\n\napplication/json\nhello");
  ASSERT_TRUE(
      client.send("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
                  "3\r\nhel\r\n2;name=\"value\"\r\nlo\r\n0\r\nTrailer: passed over\r\n\r\n"));
  EXPECT_EQ(client.read_response().body, "POST\n/p\n\n\nhello");
}

TEST(HttpServer, ReadsRequestsThatComeByteByByte) {
  RunningServer server(echo);
  RawClient client(server.port());
  const std::string request =
      "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
  for (const char c : request) ASSERT_TRUE(client.send(std::string(1, c)));
  EXPECT_EQ(client.read_response().body, "POST\n/p\n\n\nx");
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  RunningServer server(echo);
  RawClient client(server.port());
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    requests += "POST /" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
  }
  ASSERT_TRUE(client.send(requests));
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(client.read_response().body, "POST\n/" + std::to_string(i) + "\n\n\nx");
  }
}

TEST(HttpServer, LetsTheNextRequestWaitForTheAnswer) {
  Held held;
  RunningServer server(held.handler());
  RawClient client(server.port());
  ASSERT_TRUE(client.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"));
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.requests == 1; }));
  server.on_thread([&] { held.replies[0]->send({.body = "one"}); });
  EXPECT_EQ(client.read_response().body, "one");
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.requests == 2; }));
  server.on_thread([&] { held.replies[1]->send({.body = "two"}); });
  EXPECT_EQ(client.read_response().body, "two");
}

TEST(HttpServer, AnswersHeadAsGetWithoutABody) {
  RunningServer server(echo);
  RawClient client(server.port());
  ASSERT_TRUE(client.send("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_EQ(client.read_response(/*is_head=*/true).header("content-length"), "9");
  ASSERT_TRUE(client.send(kGet));  // nothing but the head was sent
  EXPECT_EQ(client.read_response().body, "GET\n/a\n\n\n");
}

TEST(HttpServer, PassesAnyMethodOn) {
  RunningServer server(echo);
  RawClient client(server.port());
  for (const std::string method : {"OPTIONS", "DELETE", "PATCH", "BREW"}) {
    ASSERT_TRUE(client.send(method + " /a HTTP/1.1\r\nHost: h\r\n\r\n"));
    EXPECT_EQ(client.read_response().body, method + "\n/a\n\n\n");
  }
  ASSERT_TRUE(client.send("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_EQ(client.read_response().body, "OPTIONS\n*\n\n\n");
}

TEST(HttpServer, ClosesWhenAsked) {
  RunningServer server(echo);
  RawClient client(server.port());
  ASSERT_TRUE(client.send("GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_EQ(response.body, "GET\n/a\n\n\n");
  EXPECT_EQ(client.read_to_end(), "");
}

TEST(HttpServer, AnswersHttp10AndCloses) {
  RunningServer server(echo);
  RawClient client(server.port());
  ASSERT_TRUE(client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_EQ(response.body, "GET\n/a\n\n\n");
  EXPECT_EQ(client.read_to_end(), "");
}

TEST(HttpServer, EchoesRequestIdsOrMakesThem) {
  RunningServer server([](HttpRequest&& request, const std::shared_ptr<Reply>& reply) {
    reply->send({.body = request.request_id});
  });
  RawClient client(server.port());
  const auto id_for = [&](const std::string& sent) {
    EXPECT_TRUE(client.send("GET / HTTP/1.1\r\nHost: h\r\n" + sent + "\r\n"));
    const RawResponse response = client.read_response();
    EXPECT_EQ(response.header("x-request-id"), response.body);
    return response.body;
  };
  EXPECT_EQ(id_for("X-Request-ID: mine-7/z\r\n"), "mine-7/z");
  EXPECT_EQ(id_for("x-request-id: " + std::string(128, 'a') + "\r\n"), std::string(128, 'a'));
  const std::string made = id_for("");
  EXPECT_THAT(made, MatchesRegex("[0-9a-f]+"));
  EXPECT_EQ(made.size(), 24U);
  EXPECT_NE(id_for(""), made);
  EXPECT_NE(id_for("X-Request-Id: " + std::string(129, 'a') + "\r\n"), std::string(129, 'a'));
  EXPECT_NE(id_for("X-Request-Id: a\xc3\xa9\r\n"), "a\xc3\xa9");
  EXPECT_NE(id_for("X-Request-Id: a\r\nX-Request-Id: b\r\n"), "b");
}

TEST(HttpServer, AsksForABodyThatWaitsForIt) {
  RunningServer server(echo);
  RawClient client(server.port());
  ASSERT_TRUE(client.send(
      "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  ASSERT_TRUE(client.send("ok"));
  EXPECT_EQ(client.read_response().body, "POST\n/p\n\n\nok");
}

TEST(HttpServer, SendsHeadersOfTheHandlerWithoutLineBreaks) {
  RunningServer server([](HttpRequest&&, const std::shared_ptr<Reply>& reply) {
    reply->send({.status = 405, .body = "{}", .headers = {{"Allow", "GET\r\nX-Evil: 1"}}});
  });
  RawClient client(server.port());
  ASSERT_TRUE(client.send(kGet));
  const RawResponse response = client.read_response();
  EXPECT_EQ(response.status_line, "HTTP/1.1 405 Method Not Allowed\r\n");
  EXPECT_EQ(response.header("allow"), "GET  X-Evil: 1");
  EXPECT_FALSE(response.has("x-evil"));
}

TEST(HttpServer, LeavesBodyAndLengthAwayWhereTheyAreForbidden) {
  RunningServer server([](HttpRequest&&, const std::shared_ptr<Reply>& reply) {
    reply->send({.status = 204, .body = "nothing"});
  });
  RawClient client(server.port());
  ASSERT_TRUE(client.send(kGet));
  const RawResponse response = client.read_response();
  EXPECT_FALSE(response.has("content-length"));
  ASSERT_TRUE(client.send(kGet));
  EXPECT_EQ(client.read_response().status, 204);
}

TEST(HttpServer, AnswersWithTheErrorThatAHandlerThrows) {
  RunningServer server([](HttpRequest&& request, const std::shared_ptr<Reply>&) {
    if (request.path == "/api") throw bad_request("n", "n is 0; at least 1 is accepted");
    throw std::runtime_error("the secret of /etc/shadow");
  });
  RawClient client(server.port());
  ASSERT_TRUE(client.send("GET /api HTTP/1.1\r\nHost: h\r\n\r\n"));
  RawResponse response = client.read_response();
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.body, R"({"error":{"message":"n is 0; at least 1 is accepted",)"
                           R"("type":"invalid_request_error","param":"n","code":null}})");
  ASSERT_TRUE(client.send(kGet));
  response = client.read_response();
  EXPECT_EQ(response.status, 500);
  EXPECT_THAT(response.body, HasSubstr("internal_error"));
  EXPECT_THAT(response.body, Not(HasSubstr("secret")));
  ASSERT_TRUE(client.send(kGet)) << "the connection is kept";
  EXPECT_EQ(client.read_response().status, 500);
}

TEST(HttpServer, AnswersARequestThatNobodyDoes) {
  RunningServer server([](HttpRequest&&, const std::shared_ptr<Reply>&) {});
  RawClient client(server.port());
  ASSERT_TRUE(client.send(kGet));
  EXPECT_EQ(client.read_response().status, 500);
}

TEST(HttpServer, RefusesASecondAnswer) {
  Held held;
  RunningServer server(held.handler());
  RawClient client(server.port());
  ASSERT_TRUE(client.send(kGet));
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.requests == 1; }));
  server.on_thread([&] {
    EXPECT_THROW(held.replies[0]->write("early"), std::logic_error);
    EXPECT_THROW(held.replies[0]->end(), std::logic_error);
    held.replies[0]->begin_stream();
    EXPECT_THROW(held.replies[0]->send({}), std::logic_error);
    EXPECT_THROW(held.replies[0]->begin_stream(), std::logic_error);
    held.replies[0]->end();
    EXPECT_FALSE(held.replies[0]->is_open());
    held.replies[0]->send({});  // ended: nothing happens
  });
  EXPECT_EQ(client.read_response().body, "");
}

TEST(HttpServer, FinishesWhatIsUnderWayWhenItStopsAccepting) {
  Held held;
  RunningServer server(held.handler());
  RawClient idle(server.port());
  RawClient busy(server.port());
  ASSERT_TRUE(busy.send(kGet));
  ASSERT_TRUE(server.eventually(
      [](const HttpCounters& c) { return c.requests == 1 && c.open_connections == 2; }));
  server.server().stop_accepting();
  EXPECT_EQ(idle.read_to_end(), "");
  EXPECT_THROW(RawClient{server.port()}, std::runtime_error);
  server.on_thread([&] { held.replies[0]->send({.body = "last"}); });
  const RawResponse response = busy.read_response();
  EXPECT_EQ(response.body, "last");
  EXPECT_EQ(busy.read_to_end(), "");
  busy.close();
  EXPECT_TRUE(server.eventually([](const HttpCounters& c) { return c.open_connections == 0; }));
}

TEST(HttpServer, ClosesConnectionsAndTellsOfItWhenItStops) {
  Held held;
  RunningServer server(held.handler());
  RawClient client(server.port());
  ASSERT_TRUE(client.send(kGet));
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.requests == 1; }));
  server.stop();
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_EQ(held.num_closed, 1);
  EXPECT_FALSE(held.replies[0]->is_open());
  held.replies[0]->send({});  // nobody hears it
  EXPECT_EQ(server.server().counters().open_connections, 0);
}

TEST(HttpServer, RunsPostedWorkInOrder) {
  RunningServer server(echo);
  std::vector<int> seen;
  for (int i = 0; i < 1000; ++i) server.server().post([&seen, i] { seen.push_back(i); });
  server.on_thread([] {});
  ASSERT_EQ(seen.size(), 1000U);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
}

TEST(HttpServer, SaysWhatIsWrongWithItsOptions) {
  HttpServer first({.host = "localhost", .port = 0}, nullptr, echo);
  EXPECT_EQ(first.host(), "127.0.0.1");
  EXPECT_THAT(message_of<ConfigError>([&] { HttpServer({.port = first.port()}, nullptr, echo); }),
              HasSubstr("Address already in use"));
  EXPECT_THAT(message_of<ConfigError>([] { HttpServer({.host = "nowhere"}, nullptr, echo); }),
              HasSubstr("neither an IPv4 or IPv6 address"));
  EXPECT_THAT(
      message_of<ConfigError>([] { HttpServer({.port = 0, .max_connections = 0}, nullptr, echo); }),
      HasSubstr("max_connections"));
  for (const std::string path : {"health", "/health/", "//health", "/a/../b", ""}) {
    EXPECT_THAT(message_of<ConfigError>(
                    [&] { HttpServer({.port = 0, .open_paths = {path}}, nullptr, echo); }),
                HasSubstr("would match no request"))
        << path;
  }
}

}  // namespace
}  // namespace augur::server
