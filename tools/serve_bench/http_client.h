// Many requests to one HTTP/1.1 server, on one thread.
//
// A request takes an idle connection or opens one; a connection whose response ended well and may
// be kept is idle again. When an idle connection turns out to have been closed by the server before
// it said a word, the request goes out once more on a new one, as HTTP clients do.
// Threading: one thread, which calls run(); handlers and timers are called in there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "tools/serve_bench/response_parser.h"
#include "tools/serve_bench/server_url.h"

namespace augur::serve_bench {

/// How a response ended.
struct HttpEnd {
  enum class Kind : uint8_t {
    kComplete,
    kCancelled,  // by the handler or cancel_all()
    kConnectFailed,
    kReset,   // an error of the connection
    kClosed,  // it was closed before the response was whole
    kMalformed,
    kTimeout,
  };
  Kind kind = Kind::kComplete;
  std::string detail;  // for people; empty when complete
};

class ResponseHandler {
 public:
  virtual ~ResponseHandler() = default;
  /// Bytes of the body came, or the head alone (`bytes` empty). False: disconnect. Then on_end()
  /// comes with kCancelled.
  virtual bool on_body(const ResponseHead& head, std::string_view bytes, int64_t now_us) = 0;
  /// The last call. `head.status` is 0 when none came.
  virtual void on_end(const ResponseHead& head, const HttpEnd& end, int64_t now_us) = 0;
};

/// Counted since the client was made.
struct ClientCounters {
  int64_t connections = 0;  // opened
  int64_t reused = 0;       // requests that found an idle one
  int64_t resent = 0;       // of those, sent again because it had been closed
  int64_t bytes_received = 0;
};

class HttpClient {
 public:
  /// Looks the host up. Throws ConfigError when it is not known. `api_key` may be empty.
  HttpClient(const ServerUrl& url, const std::string& api_key, double timeout_s);
  ~HttpClient();

  /// Microseconds of a steady clock.
  static int64_t now_us();
  /// Sends a request: "GET" or, with a JSON body, "POST". `path` begins with '/'.
  void start(std::string_view method,
             std::string_view path,
             std::string_view body,
             std::shared_ptr<ResponseHandler> handler);
  /// Ends what is under way; each handler is told kCancelled.
  void cancel_all();
  /// Calls `work` at that time, unless what is returned has been released by then.
  std::shared_ptr<void> call_at(int64_t time_us, std::function<void()> work);
  /// Runs until `is_done` says so, asked after each event, or until nothing is left to wait for.
  void run(const std::function<bool()>& is_done);

  const ClientCounters& counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::serve_bench
