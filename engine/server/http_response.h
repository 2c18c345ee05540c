// The head of an answer, as bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace augur::server {

struct ResponseHead {
  int status = 200;
  std::string_view content_type;  // empty: none is sent
  std::string_view request_id;
  std::optional<int64_t> body_bytes;  // becomes Content-Length
  bool is_chunked = false;
  bool is_event_stream = false;  // caches and proxies are told to pass it on as it comes
  bool closes = false;
  const std::vector<std::pair<std::string, std::string>>* headers = nullptr;
};

/// Appends the head with its empty line. Control characters in header values become blanks, so
/// that no value can begin a line of its own.
void append_head(const ResponseHead& head, std::string_view date, std::string& out);

/// 204, 304 and 1xx: such answers have no body and no length.
bool forbids_body(int status);

/// The value of the header Date, made once a second.
class HttpDate {
 public:
  /// Of the clock's present second, in the fixed form of RFC 9110, section 5.6.7.
  std::string_view now();

 private:
  int64_t second_ = -1;
  std::string text_;
};

}  // namespace augur::server
