// A server on a thread of its own, on a free port of the loopback interface.
#pragma once

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/server/http_server.h"

namespace augur::server {

class RunningServer {
 public:
  explicit RunningServer(HttpServer::Handler handler,
                         HttpOptions options = {},
                         const ApiKeys* keys = nullptr)
      : server_(on_free_port(std::move(options)), keys, std::move(handler)),
        thread_([this] { server_.run(); }) {}
  ~RunningServer() { stop(); }

  void stop() {
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.join();
  }

  uint16_t port() const { return server_.port(); }
  HttpServer& server() { return server_; }

  /// Runs `work` on the server's thread and returns what it does.
  template <typename Work>
  auto on_thread(Work work) {
    using Result = decltype(work());
    std::promise<Result> promise;
    server_.post([&] {
      if constexpr (std::is_void_v<Result>) {
        work();
        promise.set_value();
      } else {
        promise.set_value(work());
      }
    });
    return promise.get_future().get();
  }
  HttpCounters counters() {
    return on_thread([this] { return server_.counters(); });
  }
  /// Waits until `is_so(counters)`; false after some seconds.
  template <typename Predicate>
  bool eventually(Predicate is_so) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!is_so(counters())) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

 private:
  static HttpOptions on_free_port(HttpOptions options) {
    options.host = "127.0.0.1";
    options.port = 0;
    return options;
  }

  HttpServer server_;
  std::thread thread_;
};

/// Answers with what was asked, a line each: method, path, query, content type, body.
inline void echo(HttpRequest&& request, const std::shared_ptr<Reply>& reply) {
  HttpResponse response;
  response.content_type = "text/plain";
  response.body = request.method + "\n" + request.path + "\n" + request.query + "\n" +
                  request.content_type + "\n" + request.body;
  reply->send(std::move(response));
}

/// Keeps requests to be answered by the test, on the server's thread.
class Held {
 public:
  HttpServer::Handler handler() {
    return [this](HttpRequest&& request, std::shared_ptr<Reply> reply) {
      reply->on_close([this] { ++num_closed; });
      requests.push_back(std::move(request));
      replies.push_back(std::move(reply));
    };
  }
  std::vector<HttpRequest> requests;
  std::vector<std::shared_ptr<Reply>> replies;
  int num_closed = 0;
};

}  // namespace augur::server
