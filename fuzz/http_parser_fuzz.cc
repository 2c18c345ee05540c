// Reads arbitrary bytes as a request: whole, and cut into pieces. Both must find the same, which
// must be what Beast's own parser finds where that accepts it.
#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/server/http_parser.h"

namespace augur::server {
namespace {

namespace http = boost::beast::http;

constexpr int64_t kMaxHeaderBytes = 512;
constexpr int64_t kMaxBodyBytes = 1024;

struct Parsed {
  HttpParser::State state = HttpParser::State::kIdle;
  int status = 0;
  std::string method;
  std::string path;
  std::string body;
  size_t num_used = 0;

  bool operator==(const Parsed&) const = default;
};

// In pieces whose sizes follow from `seed`; all at once where that is 0.
Parsed parse(std::string_view bytes, uint32_t seed) {
  HttpParser parser(kMaxHeaderBytes, kMaxBodyBytes);
  Parsed parsed;
  while (parsed.num_used < bytes.size() && parser.state() < HttpParser::State::kComplete) {
    if (seed != 0) seed = seed * 1664525 + 1013904223;
    const size_t piece_bytes = seed == 0 ? bytes.size() : 1 + (seed >> 24) % 37;
    const std::string piece(bytes.substr(parsed.num_used, piece_bytes));  // its end is guarded
    const size_t used = parser.feed(piece);
    if (used == 0 || used > piece.size()) std::abort();
    parsed.num_used += used;
  }
  parsed.state = parser.state();
  if (parsed.state == HttpParser::State::kFailed) {
    parsed.status = parser.error().status;
    return parsed;
  }
  if (static_cast<int64_t>(parser.body().size()) > kMaxBodyBytes) std::abort();
  if (parsed.state >= HttpParser::State::kBody) {
    parsed.method = parser.head().method;
    parsed.path = parser.head().target.path;
    if (parsed.path.empty()) std::abort();
  }
  parsed.body = parser.body();
  return parsed;
}

void compare_with_beast(std::string_view bytes, const Parsed& parsed) {
  bytes = bytes.substr(0, parsed.num_used);
  if (bytes.substr(0, 2) == "\r\n") bytes.remove_prefix(2);  // which Beast does not pass over
  http::request_parser<http::string_body> beast;
  beast.eager(true);
  boost::beast::error_code ec;
  const size_t used = beast.put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
  if (ec && ec != http::error::need_more) return;
  if (!beast.is_done() || used != bytes.size()) std::abort();
  if (beast.get().method_string() != parsed.method || beast.get().body() != parsed.body) {
    std::abort();
  }
}

}  // namespace
}  // namespace augur::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace augur::server;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Parsed whole = parse(bytes, /*seed=*/0);
  if (parse(bytes, data[0] * 2654435761U + 1) != whole) std::abort();
  if (whole.state == HttpParser::State::kComplete) compare_with_beast(bytes, whole);
  return 0;
}
