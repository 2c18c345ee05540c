#include "engine/server/http_path.h"

#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "engine/server/api_error.h"
#include "engine/text/utf8.h"

namespace augur::server {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw bad_request("", "the request target " + what, "invalid_target");
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == '\x7f';
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Takes "http://authority" away from the absolute form.
std::string_view without_authority(std::string_view target) {
  constexpr std::string_view kScheme = "http://";
  const bool is_http =
      target.size() > kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), target.begin(), [](char expected, char c) {
        return expected == (c >= 'A' && c <= 'Z' ? c | 0x20 : c);
      });
  if (!is_http) refuse("has to begin with '/' or \"http://\"");
  target.remove_prefix(kScheme.size());
  const size_t end = std::min(target.find_first_of("/?"), target.size());
  const std::string_view authority = target.substr(0, end);
  if (authority.empty() || authority.find_first_of("@\\") != std::string_view::npos) {
    refuse("names no plain host");
  }
  return target.substr(end);
}

std::string percent_decoded(std::string_view path) {
  std::string decoded;
  decoded.reserve(path.size());
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      decoded += path[i];
      continue;
    }
    const int high = i + 2 < path.size() ? hex_digit(path[i + 1]) : -1;
    const int low = i + 2 < path.size() ? hex_digit(path[i + 2]) : -1;
    if (high < 0 || low < 0) refuse("has a '%' without two hexadecimal digits");
    const char c = static_cast<char>(high << 4 | low);
    // Decoded they would cut or end segments that the sender, or a proxy, took for one.
    if (c == '/') refuse("has an encoded slash");
    if (is_control(c)) refuse("has an encoded control character");
    decoded += c;
    i += 2;
  }
  return decoded;
}

void check_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Step step = read_utf8(text);
    if (step.kind != Utf8Step::Kind::kCodePoint) refuse("is not UTF-8 once decoded");
    text.remove_prefix(step.num_bytes);
  }
}

std::string without_dot_segments(std::string_view path) {
  std::vector<std::string_view> segments;
  while (!path.empty()) {
    const size_t end = std::min(path.find('/'), path.size());
    const std::string_view segment = path.substr(0, end);
    path.remove_prefix(std::min(end + 1, path.size()));
    if (segment.empty() || segment == ".") continue;
    if (segment != "..") {
      segments.push_back(segment);
      continue;
    }
    if (segments.empty()) refuse("leads above the root");
    segments.pop_back();
  }
  std::string normal;
  for (const std::string_view segment : segments) normal.append("/").append(segment);
  return normal.empty() ? "/" : normal;
}

}  // namespace

HttpTarget normalise_target(std::string_view target) {
  if (target == "*") return {"*", ""};
  for (const char c : target) {
    if (is_control(c) || c == ' ' || static_cast<unsigned char>(c) >= 0x80) {
      refuse(fmt::format("has the byte 0x{:02x}; it has to be percent-encoded",
                         static_cast<unsigned char>(c)));
    }
    if (c == '#') refuse("has a fragment ('#')");
  }
  if (target.empty() || target.front() != '/') target = without_authority(target);
  const size_t question = std::min(target.find('?'), target.size());
  const std::string decoded = percent_decoded(target.substr(0, question));
  if (decoded.find('\\') != std::string::npos) refuse("has a backslash");
  check_utf8(decoded);
  HttpTarget result{without_dot_segments(decoded), ""};
  if (question < target.size()) result.query = target.substr(question + 1);
  return result;
}

}  // namespace augur::server
