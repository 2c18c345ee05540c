#include "engine/server/http_response.h"

#include <fmt/core.h>
#include <time.h>

#include <array>
#include <iterator>

namespace augur::server {
namespace {

std::string_view reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "";  // RFC 9112 lets it be empty
  }
}

void append_field(std::string_view name, std::string_view value, std::string& out) {
  out.append(name).append(": ");
  for (const char c : value) out += static_cast<unsigned char>(c) < 0x20 || c == '\x7f' ? ' ' : c;
  out += "\r\n";
}

}  // namespace

bool forbids_body(int status) {
  return status < 200 || status == 204 || status == 304;
}

void append_head(const ResponseHead& head, std::string_view date, std::string& out) {
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nServer: augur\r\nDate: {}\r\n",
                 head.status, reason_of(head.status), date);
  if (!head.content_type.empty()) append_field("Content-Type", head.content_type, out);
  if (head.body_bytes) {
    fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", *head.body_bytes);
  }
  if (head.is_chunked) out += "Transfer-Encoding: chunked\r\n";
  if (head.is_event_stream) out += "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n";
  append_field("X-Request-Id", head.request_id, out);
  if (head.headers != nullptr) {
    for (const auto& [name, value] : *head.headers) append_field(name, value, out);
  }
  if (head.closes) out += "Connection: close\r\n";
  out += "\r\n";
}

std::string_view HttpDate::now() {
  const time_t now = ::time(nullptr);
  if (now == second_) return text_;
  // Not strftime: its names of days and months follow the locale.
  constexpr std::array<std::string_view, 7> kDays{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr std::array<std::string_view, 12> kMonths{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  tm parts{};
  ::gmtime_r(&now, &parts);
  text_ = fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
                      kDays[static_cast<size_t>(parts.tm_wday)], parts.tm_mday,
                      kMonths[static_cast<size_t>(parts.tm_mon)], parts.tm_year + 1900,
                      parts.tm_hour, parts.tm_min, parts.tm_sec);
  second_ = now;
  return text_;
}

}  // namespace augur::server
