// What misbehaving clients get: over the wire, with what is counted and what becomes of the
// connection. The forms of malformed requests are http_parser_test's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <chrono>
#include <string>
#include <vector>

#include "engine/server/api_keys.h"
#include "tests/server/raw_client.h"
#include "tests/server/running_server.h"
#include "tests/temp_folder.h"

namespace augur::server {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

HttpOptions small_limits() {
  HttpOptions options;
  options.max_header_bytes = 1000;
  options.max_body_bytes = 5000;
  return options;
}

// What a connection of its own gets for `bytes`: one answer, and the end of the connection.
RawResponse refusal_of(RunningServer& server, const std::string& bytes) {
  RawClient client(server.port());
  client.send(bytes);
  RawResponse response = client.read_response();
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_TRUE(response.has("x-request-id"));
  EXPECT_EQ(response.header("content-type"), "application/json");
  EXPECT_THAT(response.body, HasSubstr("\"error\":{\"message\":"));
  EXPECT_EQ(client.read_to_end(), "") << "nothing else is answered";
  return response;
}

TEST(HttpRefusal, BoundsTheBodiesOfAllConnectionsTogether) {
  HttpOptions options = small_limits();
  options.max_bodies_bytes = 6000;
  Held held;
  RunningServer server(held.handler(), options);
  const std::string request =
      "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n" + std::string(4000, 'x');
  RawClient first(server.port());
  first.send(request);
  ASSERT_TRUE(
      server.eventually([](const HttpCounters& counters) { return counters.requests == 1; }));
  const RawResponse refused = refusal_of(server, request);
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, HasSubstr("server_is_overloaded"));
  EXPECT_EQ(refused.header("retry-after"), "1");
  server.on_thread([&] { held.requests.clear(); });  // whoever parsed it is done
  RawClient third(server.port());
  third.send(request);
  EXPECT_TRUE(
      server.eventually([](const HttpCounters& counters) { return counters.requests == 2; }));
}

TEST(HttpRefusal, AnswersMalformedRequestsAndCloses) {
  RunningServer server(echo, small_limits());
  const std::string smuggled =
      "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n"
      "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
  EXPECT_EQ(refusal_of(server, smuggled).status, 400);
  EXPECT_EQ(refusal_of(server, "nonsense\r\n\r\n").status, 400);
  EXPECT_EQ(refusal_of(server, "\x16\x03\x01\x02").status, 400) << "a TLS client";
  EXPECT_EQ(refusal_of(server, "GET /a HTTP/1.1\nHost: h\n\n").status, 400);
  EXPECT_EQ(refusal_of(server, "GET /a HTTP/1.1\r\n\r\n").status, 400);
  EXPECT_EQ(refusal_of(server, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status, 505);
  EXPECT_EQ(refusal_of(server, "GET /" + std::string(2000, 'a')).status, 431);
  EXPECT_EQ(refusal_of(server, "GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n").status, 417);
  const HttpCounters counters = server.counters();
  EXPECT_EQ(counters.bad_requests, 8);
  EXPECT_EQ(counters.requests, 0);
}

TEST(HttpRefusal, FollowsTheAnswersToWhatCameBefore) {
  RunningServer server(echo);
  RawClient client(server.port());
  ASSERT_TRUE(client.send(std::string(kGet) + "bad\r\n\r\n" + std::string(kGet)));
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(client.read_response().status, 400);
  EXPECT_EQ(client.read_to_end(), "");
}

TEST(HttpRefusal, OfALargeBodyComesBeforeItAndIsReadToTheEnd) {
  RunningServer server(echo, small_limits());
  RawClient client(server.port());
  ASSERT_TRUE(client.send(
      "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5001\r\n\r\n"));
  EXPECT_EQ(client.read_response().status, 413) << "not 100";
  // A client that sends on regardless still finds the answer.
  const std::string head = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 500000\r\n\r\n";
  EXPECT_EQ(refusal_of(server, head + std::string(500'000, 'x')).status, 413);
  EXPECT_EQ(refusal_of(server,
                       "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "1388\r\n" +
                           std::string(5000, 'x') + "\r\n1\r\n")
                .status,
            413);
}

TEST(HttpRefusal, OfSlowHeadersAndBodies) {
  HttpOptions options;
  options.header_timeout = options.body_timeout = milliseconds(40);
  RunningServer server(echo, options);
  RawResponse response = refusal_of(server, "GET /a HTTP/1.1\r\nHo");
  EXPECT_EQ(response.status, 408);
  EXPECT_THAT(response.body, HasSubstr("header took longer than 40 ms"));
  response = refusal_of(server, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx");
  EXPECT_EQ(response.status, 408);
  EXPECT_THAT(response.body, HasSubstr("body took longer than 40 ms"));
}

TEST(HttpRefusal, DoesNotWaitLongerForClientsThatDribble) {
  HttpOptions options;
  options.header_timeout = milliseconds(60);
  RunningServer server(echo, options);
  RawClient client(server.port());
  // Each byte comes well within the limit; all of them do not.
  ASSERT_TRUE(client.send("GET /"));
  const auto patience = std::chrono::steady_clock::now() + RawClient::kPatience;
  while (server.counters().bad_requests == 0 && std::chrono::steady_clock::now() < patience) {
    client.send("a");
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(client.read_response().status, 408);
}

TEST(HttpRefusal, ClosesIdleConnectionsWithoutAWord) {
  HttpOptions options;
  options.idle_timeout = milliseconds(40);
  RunningServer server(echo, options);
  RawClient silent(server.port());
  RawClient used(server.port());
  ASSERT_TRUE(used.send(kGet));
  EXPECT_EQ(used.read_response().status, 200);
  EXPECT_EQ(used.read_to_end(), "");
  EXPECT_EQ(silent.read_to_end(), "");
  EXPECT_EQ(server.counters().bad_requests, 0);
}

TEST(HttpRefusal, LimitsDoNotConcernAnswersThatTakeTheirTime) {
  HttpOptions options;
  options.header_timeout = options.body_timeout = milliseconds(20);
  options.idle_timeout = options.write_timeout = milliseconds(20);
  Held held;
  RunningServer server(held.handler(), options);
  RawClient client(server.port());
  ASSERT_TRUE(client.send(kGet));
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.requests == 1; }));
  std::this_thread::sleep_for(milliseconds(100));
  server.on_thread([&] { held.replies[0]->begin_stream(); });
  std::this_thread::sleep_for(milliseconds(100));
  server.on_thread([&] {
    held.replies[0]->write("data: 1\n\n");
    held.replies[0]->end();
  });
  EXPECT_EQ(client.read_response().body, "data: 1\n\n");
}

TEST(HttpRefusal, OfMoreConnectionsThanItTakes) {
  HttpOptions options;
  options.max_connections = 2;
  RunningServer server(echo, options);
  RawClient first(server.port());
  RawClient second(server.port());
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.open_connections == 2; }));
  {
    RawClient third(server.port());
    ASSERT_TRUE(third.send(kGet));
    const RawResponse response = third.read_response();
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.header("retry-after"), "1");
    EXPECT_THAT(response.body, HasSubstr("server_is_overloaded"));
    EXPECT_EQ(third.read_to_end(), "");
  }
  ASSERT_TRUE(second.send(kGet));
  EXPECT_EQ(second.read_response().status, 200);
  first.close();
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.open_connections == 1; }));
  RawClient next(server.port());
  ASSERT_TRUE(next.send(kGet));
  EXPECT_EQ(next.read_response().status, 200);
  EXPECT_EQ(server.counters().refused_connections, 1);
}

TEST(HttpRefusal, OfAStormOfConnectionsLeavesNoneHanging) {
  HttpOptions options;
  options.max_connections = 1;
  RunningServer server(echo, options);
  RawClient first(server.port());
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.open_connections == 1; }));
  std::vector<RawClient> refused;
  for (int i = 0; i < 300; ++i) refused.emplace_back(server.port());
  for (RawClient& client : refused) EXPECT_EQ(client.read_response().status, 503);
  ASSERT_TRUE(first.send(kGet));
  EXPECT_EQ(first.read_response().status, 200);
}

// Lowers how many descriptors the process may have open, for as long as it lives.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t count) {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    rlimit few = before_;
    few.rlim_cur = count;
    ::setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

TEST(HttpRefusal, AnswersEvenWithoutDescriptors) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer of undefined behaviour looks at memory through pipes of its own";
#endif
  RunningServer server(echo);
  std::vector<RawClient> clients;
  for (int i = 0; i < 4; ++i) clients.emplace_back(server.port());
  ASSERT_TRUE(server.eventually([](const HttpCounters& c) { return c.open_connections == 4; }));
  // Connecting takes the last descriptor there is: that of the socket it is done with.
  const int last = ::dup(clients.back().native_handle());
  ::close(last);
  {
    const FewDescriptors few(static_cast<rlim_t>(last) + 1);
    RawClient refused(server.port());
    EXPECT_EQ(refused.read_response().status, 503);
    ASSERT_TRUE(clients[0].send(kGet)) << "others are served meanwhile";
    EXPECT_EQ(clients[0].read_response().status, 200);
  }
  RawClient served(server.port());
  ASSERT_TRUE(served.send(kGet));
  EXPECT_EQ(served.read_response().status, 200);
}

class HttpKeys : public ::testing::Test {
 protected:
  static ApiKeys make_keys() {
    const TempFolder folder;
    const auto file =
        folder.write("keys", "user sk-user-0123456789\nroot sk-root-0123456789 admin");
    ::chmod(file.c_str(), 0600);
    return ApiKeys::from_file(file);
  }
  // The path as the handler saw it and the key's name, or the status of a refusal.
  std::string ask(const std::string& target,
                  const std::string& header = "",
                  const std::string& version = "1.1") {
    RawClient client(server_.port());
    client.send("GET " + target + " HTTP/" + version + "\r\nHost: h\r\n" + header + "\r\n");
    const RawResponse response = client.read_response();
    if (response.status == 401) {
      EXPECT_EQ(response.header("www-authenticate"), "Bearer");
      EXPECT_THAT(response.body, HasSubstr(R"("code":"invalid_api_key")"));
      EXPECT_EQ(client.read_to_end(), "");
    }
    return response.status == 200 ? response.body : std::to_string(response.status);
  }

  const ApiKeys keys_ = make_keys();
  RunningServer server_{[](HttpRequest&& request, const std::shared_ptr<Reply>& reply) {
                          reply->send({.body = request.path + " " + request.key_name +
                                               (request.is_admin ? " admin" : "")});
                        },
                        HttpOptions{.open_paths = {"/health", "/v1/open"}}, &keys_};
  const std::string user_ = "Authorization: Bearer sk-user-0123456789\r\n";
};

TEST_F(HttpKeys, LetRequestsIn) {
  EXPECT_EQ(ask("/v1/models", user_), "/v1/models user");
  EXPECT_EQ(ask("/v1/models", "authorization: bearer sk-root-0123456789\r\n"),
            "/v1/models root admin");
  EXPECT_EQ(ask("/v1/models", user_, "1.0"), "/v1/models user");
}

TEST_F(HttpKeys, KeepRequestsOut) {
  for (const std::string& header : std::vector<std::string>{
           "", "Authorization: Bearer sk-user-012345678\r\n", "Authorization: Bearer\r\n",
           "Authorization: Basic sk-user-0123456789\r\n", "x-api-key: sk-user-0123456789\r\n",
           "Authorization: sk-user-0123456789\r\n"}) {
    EXPECT_EQ(ask("/v1/models", header), "401") << header;
    EXPECT_EQ(ask("/v1/models", header, "1.0"), "401") << header;
  }
  EXPECT_EQ(ask("/v1/models", user_ + user_), "400");
  EXPECT_EQ(ask("*"), "400");
  EXPECT_EQ(server_.counters().unauthorized, 12);
  EXPECT_EQ(server_.counters().requests, 0);
}

TEST_F(HttpKeys, AreNotAskedForOnOpenPaths) {
  EXPECT_EQ(ask("/health"), "/health ");
  EXPECT_EQ(ask("//%68ealth/?x"), "/health ");
  EXPECT_EQ(ask("/v1/models/../open"), "/v1/open ");
  EXPECT_EQ(ask("http://elsewhere/health"), "/health ");
  EXPECT_EQ(ask("/health", user_), "/health user");
  EXPECT_EQ(ask("/health", "Authorization: Bearer wrong\r\n"), "/health ");
}

TEST_F(HttpKeys, AreAskedForHoweverAPathIsSpelt) {
  for (const char* target : {"//v1/models", "/v1//models", "/%76%31/models", "/health/../v1/models",
                             "/health/%2e%2e/v1/models", "/v1/open/../models", "http://h/v1/models",
                             "/health/x", "/healthy", "/Health", "/health%20", "/health;x",
                             "/v1/models?/health", "/health%3fx", "/%2568ealth", "/"}) {
    EXPECT_EQ(ask(target), "401") << target;
    EXPECT_EQ(ask(target, "", "1.0"), "401") << target;
  }
  for (const char* target : {"/health%2f..%2fv1/models", "/health/..%5cv1", "/health%00",
                             "https://h/health", "http://user@h/health", "/../health"}) {
    EXPECT_EQ(ask(target), "400") << target;
  }
}

TEST_F(HttpKeys, AreCheckedBeforeTheBodyIsTaken) {
  RawClient client(server_.port());
  client.send("POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 401) << "not 100";
}

TEST_F(HttpKeys, AreCheckedForEachRequestOfAConnection) {
  RawClient client(server_.port());
  client.send("GET /a HTTP/1.1\r\nHost: h\r\n" + user_ + "\r\n" + std::string(kGet));
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(client.read_response().status, 401);
}

TEST(HttpWithoutKeys, EverybodyIsAdmin) {
  RunningServer server([](HttpRequest&& request, const std::shared_ptr<Reply>& reply) {
    reply->send({.body = request.key_name + (request.is_admin ? "admin" : "")});
  });
  RawClient client(server.port());
  client.send(kGet);
  EXPECT_EQ(client.read_response().body, "admin");
}

}  // namespace
}  // namespace augur::server
