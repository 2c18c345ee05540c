// The bodies of requests that control the server.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace augur::server {

/// Of /abort_request: {"rid": "..."} or {"abort_all": true}.
struct AbortBody {
  std::string rid;
  bool is_all = false;
};

/// Of /start_profile: {"file": "name.json", "num_steps": N}, both optional.
struct ProfileBody {
  std::string file;  // empty: the server makes a name
  std::optional<int64_t> num_steps;
};

// Both throw ApiError. An empty body counts as {}; fields that other servers know are ignored.
AbortBody parse_abort_body(std::string_view body);
ProfileBody parse_profile_body(std::string_view body);

}  // namespace augur::server
