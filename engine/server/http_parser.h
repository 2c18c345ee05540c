// The bytes of a connection, read as requests: strictly, so that nobody before us reads them
// otherwise.
//
// Boost.Beast takes heads apart; what it tolerates and proxies disagree about is refused here:
// bare CR and LF, control characters, folded lines, a length given twice or beside an encoding,
// encodings other than "chunked", no Host or two. Bodies are our own (http_chunks.h): Beast's
// reader of chunks needs lines whole, and lets line feeds into quoted extensions.
// States: idle -> head -> body -> complete, or failed; reset() begins the next request.
// Threading: one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/server/api_error.h"
#include "engine/server/http_chunks.h"
#include "engine/server/http_path.h"

namespace augur::server {

struct HttpHead {
  std::string method;
  HttpTarget target;
  bool is_http_1_0 = false;
  bool keeps_alive = false;  // the client lets the connection be used again
  bool has_body = false;
  bool expects_continue = false;  // it sends the body once it is told to
  std::string authorization;
  std::string content_type;  // lower case, without parameters
  std::string request_id;    // X-Request-Id as it came; empty where there is none, or several
};

class HttpParser {
 public:
  enum class State : uint8_t { kIdle, kHead, kBody, kComplete, kFailed };

  HttpParser(int64_t max_header_bytes, int64_t max_body_bytes);

  /// Takes bytes of the connection and returns how many of them were used. Stops at the end of the
  /// head, so that it can be looked at before the body is taken, and at the end of the request.
  /// Requires: state() is neither kComplete nor kFailed.
  size_t feed(std::string_view bytes);

  State state() const { return state_; }
  /// The body's rest is still to be fed in kBody.
  const HttpHead& head() const { return head_; }
  std::string& body() { return body_; }
  /// Of kFailed: 400, 413, 417, 431 or 505.
  const ApiError& error() const { return error_; }
  /// Back to kIdle.
  void reset();

 private:
  size_t feed_head(std::string_view bytes);
  size_t feed_chunks(std::string_view bytes);
  size_t feed_length(std::string_view bytes);
  bool take_head_byte(char c);
  void parse_head();
  void fail(ApiError error);
  void fail_body_too_large();
  void fail_header_too_large();

  const int64_t max_header_bytes_;
  const int64_t max_body_bytes_;
  State state_ = State::kIdle;
  HttpHead head_;
  std::string body_;
  ApiError error_;
  std::string head_bytes_;
  int64_t line_bytes_ = 0;  // of the head's line under way, without its end
  bool skipped_blank_line_ = false;
  // Of the body.
  int64_t missing_bytes_ = 0;
  std::optional<ChunkDecoder> chunks_;
};

}  // namespace augur::server
