// Where the server is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace augur::serve_bench {

struct ServerUrl {
  std::string host;  // a name or an address, without brackets
  uint16_t port = 80;
  std::string path_prefix;  // before /v1/...; empty, or begins with '/' and does not end with one

  /// "host:port" as the Host header has it.
  std::string authority() const;
};

/// Reads http://HOST[:PORT][/PREFIX]; a prefix that ends in /v1, as many clients want it, loses
/// that. Throws ConfigError for anything else, https among it.
ServerUrl parse_server_url(std::string_view url);

/// The first key of a file: a line "KEY" or "NAME KEY ..."; blank lines and those that begin with
/// '#' are passed over. Throws ConfigError when there is none or it has characters that a header
/// cannot have.
std::string read_api_key(const std::string& file);

}  // namespace augur::serve_bench
