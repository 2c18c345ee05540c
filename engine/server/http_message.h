// A request as it came over the wire, and what answers it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/server/body_budget.h"

namespace augur::server {

/// A whole request that passed the limits and the key check.
struct HttpRequest {
  std::string method;        // "GET", "POST", ...; HEAD arrives as GET, its answer loses its body
  std::string path;          // normalised: decoded, no empty, "." or ".." segments, no query
  std::string query;         // what followed '?', as it was
  std::string content_type;  // lower case, without parameters: "application/json"
  std::string body;
  BodyBudget::Hold body_hold;  // for as long as the body is kept
  std::string
      request_id;         // X-Request-Id where it is 1 to 128 printable ASCII characters, else made
  std::string key_name;   // of the API key that let it in; empty where no keys are configured
  bool is_admin = false;  // by its key, or because no keys are configured
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;  // further ones: Retry-After, Allow
};

/// How one request is answered: by send(), or by begin_stream(), write()s and end(). When the last
/// pointer to it goes before that, the client gets 500, or its stream is cut off.
/// Threading: the server's own thread (HttpServer::post), or any once HttpServer::run has returned.
/// May be kept after the connection is gone; calls do nothing then.
class Reply {
 public:
  virtual ~Reply() = default;
  /// The whole answer. X-Request-Id is added.
  virtual void send(HttpResponse response) = 0;
  /// Begins an answer of server-sent events: status 200, text/event-stream.
  virtual void begin_stream() = 0;
  /// Queues bytes of the stream. What is written before the socket takes more goes out together.
  /// A client that lets more than HttpOptions::max_stream_buffer_bytes pile up is disconnected.
  virtual void write(std::string_view bytes) = 0;
  virtual void end() = 0;
  /// Called once if the client is gone before the answer is complete: at once when its socket
  /// closes or resets, whether or not anything was being written, though never from within a call
  /// of ours. A client that is gone already (is_open) is not told of again.
  virtual void on_close(std::function<void()> callback) = 0;
  virtual bool is_open() const = 0;
};

}  // namespace augur::server
