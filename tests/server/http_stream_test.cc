// Answers that come bit by bit, and clients that go away or stop reading meanwhile.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/server/raw_client.h"
#include "tests/server/running_server.h"

namespace augur::server {
namespace {

using std::chrono::milliseconds;

constexpr std::string_view kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

class HttpStream : public ::testing::Test {
 protected:
  // Sends a request and waits until the server has it.
  void ask(RawClient& client, std::string_view request = kGet) {
    const int64_t before = server_->counters().requests;
    ASSERT_TRUE(client.send(request));
    ASSERT_TRUE(
        server_->eventually([&](const HttpCounters& c) { return c.requests == before + 1; }));
  }
  template <typename Work>
  auto on_thread(Work work) {
    return server_->on_thread(work);
  }
  Reply& reply(size_t idx = 0) { return *held_.replies[idx]; }
  bool eventually_closed(int count) {
    return server_->eventually([&](const HttpCounters& c) { return c.disconnects >= count; }) &&
           on_thread([&] { return held_.num_closed; }) == count;
  }

  Held held_;
  std::unique_ptr<RunningServer> server_ = std::make_unique<RunningServer>(held_.handler());
};

TEST_F(HttpStream, HasTheHeadersOfEventStreams) {
  RawClient client(server_->port());
  ask(client);
  on_thread([&] { reply().begin_stream(); });
  const RawResponse response = client.read_response_head();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.header("content-type"), "text/event-stream; charset=utf-8");
  EXPECT_EQ(response.header("cache-control"), "no-cache");
  EXPECT_EQ(response.header("x-accel-buffering"), "no");
  EXPECT_EQ(response.header("transfer-encoding"), "chunked");
  EXPECT_TRUE(response.has("x-request-id"));
}

TEST_F(HttpStream, SendsWhatOneTurnWritesAsOneChunk) {
  RawClient client(server_->port());
  ask(client);
  on_thread([&] {
    reply().begin_stream();
    reply().write("data: 1\n\n");
    reply().write("");
    reply().write("data: 2\n\n");
  });
  RawResponse response = client.read_response_head();
  ASSERT_TRUE(client.read_chunk(response));
  EXPECT_EQ(response.body, "data: 1\n\ndata: 2\n\n");
  on_thread([&] { reply().write("data: 3\n\n"); });
  ASSERT_TRUE(client.read_chunk(response));
  EXPECT_EQ(response.body, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
  on_thread([&] {
    reply().write("data: [DONE]\n\n");
    reply().end();
  });
  ASSERT_TRUE(client.read_chunk(response));
  EXPECT_FALSE(client.read_chunk(response));
  EXPECT_EQ(server_->counters().stream_writes, 3);
  ask(client);  // the connection is kept
}

TEST_F(HttpStream, IsPlainAndEndsWithTheConnectionInHttp10) {
  RawClient client(server_->port());
  ask(client, "GET /a HTTP/1.0\r\n\r\n");
  on_thread([&] {
    reply().begin_stream();
    reply().write("data: 1\n\n");
  });
  const RawResponse response = client.read_response_head();
  EXPECT_FALSE(response.has("transfer-encoding"));
  EXPECT_EQ(response.header("connection"), "close");
  EXPECT_EQ(client.read_bytes(9), "data: 1\n\n");
  on_thread([&] {
    reply().write("data: 2\n\n");
    reply().end();
  });
  EXPECT_EQ(client.read_to_end(), "data: 2\n\n");
}

TEST_F(HttpStream, OfAHeadRequestIsItsHead) {
  RawClient client(server_->port());
  ask(client, "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n");
  on_thread([&] {
    reply().begin_stream();
    reply().write("data: 1\n\n");
    reply().end();
  });
  EXPECT_EQ(client.read_response(/*is_head=*/true).status, 200);
  ask(client);
  on_thread([&] { reply(1).send({.body = "next"}); });
  EXPECT_EQ(client.read_response().body, "next");
}

TEST_F(HttpStream, IsCutOffWhenNobodyEndsIt) {
  RawClient client(server_->port());
  ask(client);
  on_thread([&] {
    reply().begin_stream();
    reply().write("data: 1\n\n");
  });
  RawResponse response = client.read_response_head();
  ASSERT_TRUE(client.read_chunk(response));
  on_thread([&] { held_.replies.clear(); });
  EXPECT_EQ(client.read_to_end(), "") << "no last chunk";
  EXPECT_EQ(on_thread([&] { return held_.num_closed; }), 0);
}

TEST_F(HttpStream, ReachesManyClientsWithEveryEventInOrder) {
  constexpr int kNumClients = 300;
  constexpr int kNumEvents = 20;
  std::vector<RawClient> clients;
  for (int i = 0; i < kNumClients; ++i) {
    clients.emplace_back(server_->port());
    ASSERT_TRUE(clients.back().send(kGet));
  }
  ASSERT_TRUE(server_->eventually([](const HttpCounters& c) { return c.requests == kNumClients; }));
  on_thread([&] {
    for (const auto& reply : held_.replies) reply->begin_stream();
  });
  std::string expected;
  for (int event = 0; event < kNumEvents; ++event) {
    const std::string text = "data: " + std::to_string(event) + "\n\n";
    expected += text;
    server_->server().post([this, text] {
      for (const auto& reply : held_.replies) reply->write(text);
    });
  }
  server_->server().post([this] {
    for (const auto& reply : held_.replies) reply->end();
  });
  for (RawClient& client : clients) EXPECT_EQ(client.read_response().body, expected);
  const HttpCounters counters = server_->counters();
  EXPECT_LE(counters.stream_writes, kNumClients * (kNumEvents + 2));
  EXPECT_EQ(counters.disconnects, 0);
}

TEST_F(HttpStream, NoticesAClientThatCloses) {
  RawClient client(server_->port());
  ask(client);
  client.close();
  EXPECT_TRUE(eventually_closed(1)) << "before anything was answered";
  EXPECT_FALSE(on_thread([&] { return reply().is_open(); }));
  on_thread([&] {
    reply().begin_stream();  // nobody minds
    reply().write("data: 1\n\n");
    reply().end();
  });
  EXPECT_TRUE(server_->eventually([](const HttpCounters& c) { return c.open_connections == 0; }));
}

TEST_F(HttpStream, NoticesAClientThatResets) {
  RawClient client(server_->port());
  ask(client);
  client.reset();
  EXPECT_TRUE(eventually_closed(1));
}

TEST_F(HttpStream, TakesAHalfClosedClientToBeGone) {
  RawClient client(server_->port());
  ask(client);
  client.half_close();
  EXPECT_TRUE(eventually_closed(1));
  EXPECT_EQ(client.read_to_end(), "");
}

TEST_F(HttpStream, NoticesAClientThatClosesBetweenEvents) {
  RawClient client(server_->port());
  ask(client);
  on_thread([&] {
    reply().begin_stream();
    reply().write("data: 1\n\n");
  });
  RawResponse response = client.read_response_head();
  ASSERT_TRUE(client.read_chunk(response));
  client.close();
  EXPECT_TRUE(eventually_closed(1));
}

TEST_F(HttpStream, NoticesAClosingBehindRequestsThatWait) {
  RawClient client(server_->port());
  ask(client, std::string(kGet) + std::string(kGet));
  // More than is read ahead, so that it lies in the kernel.
  ASSERT_TRUE(client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" +
                          std::string(100'000, 'x')));
  client.close();
  EXPECT_TRUE(eventually_closed(1));
  EXPECT_EQ(server_->counters().requests, 1);
}

TEST_F(HttpStream, DoesNotTellOfClientsThatGoOnceAnswered) {
  RawClient client(server_->port());
  ask(client);
  on_thread([&] { reply().send({.body = "x"}); });
  EXPECT_EQ(client.read_response().body, "x");
  client.close();
  EXPECT_TRUE(server_->eventually([](const HttpCounters& c) { return c.open_connections == 0; }));
  EXPECT_EQ(on_thread([&] { return held_.num_closed; }), 0);
  EXPECT_EQ(server_->counters().disconnects, 0);
}

TEST(HttpHalfClose, AfterARequestThatIsAnsweredAtOnceDoesNotMatter) {
  RunningServer server(echo);
  RawClient client(server.port());
  ASSERT_TRUE(client.send(std::string(kGet) + "GET /b HTTP/1.1\r\nHost: h\r\n\r\n"));
  client.half_close();
  EXPECT_EQ(client.read_response().body, "GET\n/a\n\n\n");
  EXPECT_EQ(client.read_response().body, "GET\n/b\n\n\n");
  EXPECT_EQ(client.read_to_end(), "");
}

TEST(HttpHalfClose, InTheMiddleOfARequestEndsTheConnection) {
  RunningServer server(echo);
  for (const char* part :
       {"", "GET /a", "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nx"}) {
    RawClient client(server.port());
    ASSERT_TRUE(client.send(part));
    client.half_close();
    EXPECT_EQ(client.read_to_end(), "") << part;
  }
  EXPECT_TRUE(server.eventually([](const HttpCounters& c) { return c.open_connections == 0; }));
  EXPECT_EQ(server.counters().requests, 0);
}

// Streams that one client reads and another does not.
class HttpSlowReader : public ::testing::Test {
 protected:
  static constexpr int kReceiveBytes = 4096;

  void start(const HttpOptions& options) {
    server_ = std::make_unique<RunningServer>(held_.handler(), options);
  }
  void ask(RawClient& client) {
    ASSERT_TRUE(client.send(kGet));
    ++num_asked_;
    ASSERT_TRUE(
        server_->eventually([&](const HttpCounters& c) { return c.requests == num_asked_; }));
    server_->on_thread([&] { held_.replies.back()->begin_stream(); });
  }
  bool is_open(size_t idx) {
    return server_->on_thread([&] { return held_.replies[idx]->is_open(); });
  }

  Held held_;
  std::unique_ptr<RunningServer> server_;
  int64_t num_asked_ = 0;
};

TEST_F(HttpSlowReader, IsCutOffWhileOthersGoOn) {
  HttpOptions options;
  options.max_stream_buffer_bytes = 256 << 10;
  start(options);
  RawClient slow(server_->port(), kReceiveBytes);
  RawClient quick(server_->port());
  ask(slow);
  ask(quick);
  RawResponse response = quick.read_response_head();
  const std::string block(64 << 10, 'x');
  int num_blocks = 0;
  // The kernel takes some megabytes before anything piles up here.
  while (is_open(0) && num_blocks < 1000) {
    server_->on_thread([&] {
      for (const auto& reply : held_.replies) reply->write(block);
    });
    while (response.body.size() < block.size()) ASSERT_TRUE(quick.read_chunk(response));
    EXPECT_TRUE(response.body == block);
    response.body.clear();
    ++num_blocks;
  }
  EXPECT_LT(num_blocks, 1000);
  EXPECT_TRUE(is_open(1));
  const HttpCounters counters = server_->counters();
  EXPECT_EQ(counters.slow_readers, 1);
  EXPECT_EQ(counters.disconnects, 1);
  EXPECT_EQ(server_->on_thread([&] { return held_.num_closed; }), 1);
}

TEST_F(HttpSlowReader, IsNotWhoeverIsWrittenMuchAtOnce) {
  HttpOptions options;
  options.max_stream_buffer_bytes = 10'000;
  start(options);
  RawClient client(server_->port());
  ask(client);
  server_->on_thread([&] {
    for (int i = 0; i < 20; ++i) held_.replies[0]->write(std::string(1'000, 'x'));
    held_.replies[0]->end();
  });
  EXPECT_EQ(client.read_response().body, std::string(20'000, 'x'));
}

TEST_F(HttpSlowReader, IsCutOffAfterAWhileWithoutTakingAByte) {
  HttpOptions options;
  options.max_stream_buffer_bytes = 64 << 20;
  options.write_timeout = milliseconds(50);
  start(options);
  RawClient client(server_->port(), kReceiveBytes);
  ask(client);
  server_->on_thread([&] { held_.replies[0]->write(std::string(16 << 20, 'x')); });
  EXPECT_TRUE(server_->eventually([](const HttpCounters& c) { return c.slow_readers == 1; }));
  EXPECT_FALSE(is_open(0));
  EXPECT_EQ(server_->on_thread([&] { return held_.num_closed; }), 1);
}

TEST_F(HttpSlowReader, IsMissedAtOnceWhenItGoes) {
  HttpOptions options;
  options.max_stream_buffer_bytes = 64 << 20;
  start(options);
  RawClient streamed(server_->port(), kReceiveBytes);
  RawClient whole(server_->port(), kReceiveBytes);
  ask(streamed);
  ASSERT_TRUE(whole.send(kGet));
  ASSERT_TRUE(server_->eventually([](const HttpCounters& c) { return c.requests == 2; }));
  server_->on_thread([&] {
    held_.replies[0]->write(std::string(16 << 20, 'x'));
    held_.replies[1]->send({.body = std::string(16 << 20, 'x')});
  });
  streamed.close();
  whole.close();
  EXPECT_TRUE(server_->eventually([](const HttpCounters& c) { return c.open_connections == 0; }));
  const HttpCounters counters = server_->counters();
  EXPECT_EQ(counters.disconnects, 2);
  EXPECT_EQ(counters.slow_readers, 0);
  EXPECT_EQ(server_->on_thread([&] { return held_.num_closed; }), 1) << "one was told all";
}

TEST_F(HttpSlowReader, IsCutOffFromAWholeAnswerToo) {
  HttpOptions options;
  options.write_timeout = milliseconds(50);
  RunningServer server(
      [](HttpRequest&&, const std::shared_ptr<Reply>& reply) {
        reply->send({.body = std::string(16 << 20, 'x')});
      },
      options);
  RawClient client(server.port(), kReceiveBytes);
  ASSERT_TRUE(client.send(kGet));
  EXPECT_TRUE(server.eventually(
      [](const HttpCounters& c) { return c.slow_readers == 1 && c.open_connections == 0; }));
}

TEST_F(HttpSlowReader, IsBorneWithAsLongAsItReads) {
  HttpOptions options;
  options.max_stream_buffer_bytes = 64 << 20;
  options.write_timeout = milliseconds(400);
  start(options);
  RawClient client(server_->port(), kReceiveBytes);
  ask(client);
  server_->on_thread([&] { held_.replies[0]->write(std::string(16 << 20, 'x')); });
  // Too little for the socket to become writable, which takes a third of its buffer.
  for (int i = 0; i < 120; ++i) {
    client.read_bytes(1'000);
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_TRUE(is_open(0));
  EXPECT_EQ(server_->counters().slow_readers, 0);
}

int64_t num_descriptors() {
  const std::filesystem::directory_iterator folder("/proc/self/fd");
  return std::distance(begin(folder), end(folder));
}

int64_t resident_bytes() {
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  return resident_pages * ::sysconf(_SC_PAGESIZE);
}

// Connections that end in every way there is, one after another.
void churn(RunningServer& server, int count) {
  for (int i = 0; i < count; ++i) {
    RawClient client(server.port());
    switch (i % 5) {
      case 0:
        break;
      case 1:
        client.send("GET /a HT");
        break;
      case 2:
        client.send(kGet);
        break;
      case 3:
        client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\nx");
        break;
      default:
        client.send("broken\r\n");
        break;
    }
    if (i % 2 == 0) client.reset();
  }
  EXPECT_TRUE(server.eventually([](const HttpCounters& c) { return c.open_connections == 0; }));
}

TEST(HttpChurn, LeavesNoDescriptorAndNoMemoryBehind) {
  std::vector<std::shared_ptr<Reply>> replies;
  int64_t num_closed = 0;
  RunningServer server([&](HttpRequest&&, std::shared_ptr<Reply> reply) {
    reply->begin_stream();
    reply->write("data: 1\n\n");
    // As the server's owner would: the reply is kept until the client is gone.
    Reply* const raw = reply.get();
    reply->on_close([&, raw] {
      ++num_closed;
      std::erase_if(replies, [&](const auto& kept) { return kept.get() == raw; });
    });
    replies.push_back(std::move(reply));
  });
  churn(server, 500);
  const int64_t descriptors = num_descriptors();
  const int64_t bytes = resident_bytes();
  churn(server, 2000);
  EXPECT_EQ(num_descriptors(), descriptors);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(resident_bytes() - bytes, 2 << 20);
#else
  static_cast<void>(bytes);  // sanitizers keep freed memory
#endif
  const HttpCounters counters = server.counters();
  EXPECT_EQ(counters.connections, 2500);
  EXPECT_EQ(counters.disconnects, counters.requests);
  EXPECT_EQ(server.on_thread([&] { return num_closed; }), counters.requests);
  EXPECT_EQ(server.on_thread([&] { return replies.size(); }), 0U);
}

}  // namespace
}  // namespace augur::server
