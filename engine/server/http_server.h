// HTTP/1.1 over TCP: connections, limits, deadlines, keys. What requests mean is the handler's.
//
// One thread runs everything (run()); others hand it work with post(). Requests are answered one at
// a time per connection, in order.
// Limits hold before memory is taken: headers, body, connections, the time to send a header and a
// body, idle time, what a slow reader may leave unread. Both Content-Length and Transfer-Encoding,
// repeated or malformed ones, bad header characters and HTTP versions other than 1.0 and 1.1 are
// refused and the connection closed, so that no proxy before us sees requests where we see others.
// Refused with an error_response: 400 malformed, 401 no key, 408 too slow, 413 and 431 too large,
// 417, 505, and 503 over max_connections. The key is asked for before the body is taken.
// A client that ends its stream, even by half, before its answer is complete is taken to be gone.
// Sources: RFC 9110, RFC 9112.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/server/http_message.h"

namespace augur::server {

class ApiKeys;

struct HttpOptions {
  std::string host = "127.0.0.1";  // an address, or "localhost"
  uint16_t port = 8000;            // 0: any that is free
  int64_t max_connections = 4096;
  int64_t max_header_bytes = 16 << 10;
  int64_t max_body_bytes = 32 << 20;
  int64_t max_bodies_bytes = int64_t{1} << 30;  // all that are read or parsed at a time
  int64_t max_stream_buffer_bytes = 1 << 20;
  std::chrono::milliseconds header_timeout{
      10'000};  // from a request's first byte to its header's end
  std::chrono::milliseconds body_timeout{60'000};
  std::chrono::milliseconds idle_timeout{75'000};   // between requests of a connection
  std::chrono::milliseconds write_timeout{60'000};  // without a byte taken by the client
  // Paths served without a key; normalised, compared whole.
  std::vector<std::string> open_paths{"/health"};
};

/// Counted since the start.
struct HttpCounters {
  int64_t connections = 0;          // accepted
  int64_t refused_connections = 0;  // over max_connections
  int64_t requests = 0;             // parsed whole and passed on
  int64_t bad_requests = 0;         // malformed, too large, too slow
  int64_t unauthorized = 0;
  int64_t disconnects = 0;   // before the answer was complete
  int64_t slow_readers = 0;  // of those, cut off for not reading
  int64_t bytes_sent = 0;
  int64_t stream_writes = 0;     // writes to sockets that carried events
  int64_t open_connections = 0;  // now
};

class HttpServer {
 public:
  /// Called on the server's thread for each request. An ApiError it throws is the answer; another
  /// exception is logged and answered with 500. Work for post() and callbacks do not throw.
  using Handler = std::function<void(HttpRequest&& request, std::shared_ptr<Reply> reply)>;

  /// Binds and listens; connections wait until run(). `keys` may be null: everything is open. It
  /// outlives the server. Throws ConfigError when the address cannot be had, with the reason.
  HttpServer(const HttpOptions& options, const ApiKeys* keys, Handler handler);
  ~HttpServer();

  const std::string& host() const;
  uint16_t port() const;
  /// Serves until stop(). Called once.
  void run();
  /// Runs `work` on the server's thread, in the order of the calls. From any thread.
  void post(std::function<void()> work);
  /// Closes the listening socket and idle connections; requests under way are finished, with
  /// "Connection: close". From any thread.
  void stop_accepting();
  /// Ends run(), once work posted before is done; connections that are left are closed, which
  /// Reply::on_close tells. Work posted later is never run. From any thread.
  void stop();
  /// On the server's thread, or after run() has returned.
  HttpCounters counters() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::server
