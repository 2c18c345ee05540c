#include "tools/serve_bench/server_url.h"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "configs/config_error.h"
#include "prefetch/file.h"

namespace augur::serve_bench {
namespace {

bool is_printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7F'; });
}

ConfigError wrong_url(std::string_view url, const std::string& what) {
  return {"--url", what + "; found " + std::string(url) +
                       ", accepted: http://HOST[:PORT], such as http://127.0.0.1:8000"};
}

}  // namespace

std::string ServerUrl::authority() const {
  const bool is_v6 = host.find(':') != host.npos;
  return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

ServerUrl parse_server_url(std::string_view url) {
  constexpr std::string_view kScheme = "http://";
  if (url.starts_with("https://"))
    throw wrong_url(url, "TLS is not spoken: measure behind the proxy that ends it");
  if (!url.starts_with(kScheme)) throw wrong_url(url, "not an http URL");
  if (!is_printable(url)) throw wrong_url(url, "blanks or characters that are not ASCII");
  std::string_view rest = url.substr(kScheme.size());
  if (rest.find_first_of("?#@") != rest.npos) throw wrong_url(url, "a user, query or fragment");

  ServerUrl result;
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view path = rest.substr(slash);
  std::string_view host = rest.substr(0, slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.ends_with("/v1")) path.remove_suffix(3);
  result.path_prefix = path;

  std::string_view port;
  if (host.starts_with('[')) {
    const size_t bracket = host.find(']');
    if (bracket == host.npos) throw wrong_url(url, "no ] after [");
    port = host.substr(bracket + 1);
    host = host.substr(1, bracket - 1);
  } else if (const size_t colon = host.find(':'); colon != host.npos) {
    port = host.substr(colon);
    host = host.substr(0, colon);
  }
  if (host.empty()) throw wrong_url(url, "no host");
  result.host = host;
  if (port.empty()) return result;
  const char* const end = port.data() + port.size();
  const auto [stop, error] = std::from_chars(port.data() + 1, end, result.port);
  if (port.front() != ':' || error != std::errc() || stop != end || result.port == 0)
    throw wrong_url(url, "a wrong port");
  return result;
}

std::string read_api_key(const std::string& file) {
  constexpr int64_t kMaxFileBytes = 1 << 20;
  std::istringstream lines(read_text_file(file, kMaxFileBytes));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    std::string second;
    words >> first >> second;
    if (first.empty() || first.starts_with('#')) continue;
    const std::string& key = second.empty() ? first : second;
    if (!is_printable(key))
      throw ConfigError(file, "the key has characters other than printable ASCII");
    return key;
  }
  throw ConfigError(file, "no key found; accepted: a line with KEY or NAME KEY");
}

}  // namespace augur::serve_bench
