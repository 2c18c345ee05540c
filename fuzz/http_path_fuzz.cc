// Reads arbitrary bytes as a request's target. What is accepted must have no other spelling left.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/server/api_error.h"
#include "engine/server/http_path.h"

namespace augur::server {
namespace {

void check_segment(std::string_view segment) {
  if (segment.empty() || segment == "." || segment == "..") std::abort();
  for (const char c : segment) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '\x7f' || c == '\\') std::abort();
  }
}

std::string percent_encoded(std::string_view path) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string encoded;
  for (const char c : path) {
    if (c == '/') {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += kDigits[byte >> 4];
    encoded += kDigits[byte & 15];
  }
  return encoded;
}

void check(const HttpTarget& target) {
  if (target.path == "*") return;
  if (target.path.empty() || target.path.front() != '/') std::abort();
  if (target.path != "/") {
    std::string_view rest = target.path;
    while (!rest.empty()) {
      rest.remove_prefix(1);  // the slash
      const size_t end = std::min(rest.find('/'), rest.size());
      check_segment(rest.substr(0, end));
      rest.remove_prefix(end);
    }
  }
  const HttpTarget again = normalise_target(percent_encoded(target.path));
  if (again.path != target.path) std::abort();
}

}  // namespace
}  // namespace augur::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace augur::server;
  HttpTarget target;
  try {
    target = normalise_target({reinterpret_cast<const char*>(data), size});
  } catch (const ApiError&) {
    return 0;
  }
  check(target);
  return 0;
}
