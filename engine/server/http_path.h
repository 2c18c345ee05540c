// The target of a request, brought into the one form that keys and routes are checked on.
#pragma once

#include <string>
#include <string_view>

namespace augur::server {

struct HttpTarget {
  std::string path;   // begins with '/', or is "*"; UTF-8 without control characters
  std::string query;  // what followed '?', as it was
};

/// Reads "/path?query" or "http://host/path?query"; "*" stays as it is.
/// The path is percent-decoded once; then empty and "." segments are dropped and ".." takes away
/// the segment before it. So there is one spelling of each path: "//v1/%6dodels/" is "/v1/models".
/// Throws ApiError (400) for any other form or scheme, a broken percent sequence, an encoded slash,
/// a backslash, a control character or one outside ASCII, encoded bytes that are not UTF-8, ".."
/// above the root, and '#'.
HttpTarget normalise_target(std::string_view target);

}  // namespace augur::server
