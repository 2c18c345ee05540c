#include "engine/server/control_bodies.h"

#include "engine/server/api_error.h"
#include "engine/server/json_fields.h"

namespace augur::server {
namespace {

// Bodies of control are short.
constexpr int64_t kMaxValues = 64;
constexpr size_t kMaxNameBytes = 256;
constexpr int64_t kMaxSteps = 1'000'000;

boost::json::value parse_body(std::string_view body) {
  return parse_json_object(body.empty() ? "{}" : body, kMaxValues);
}

}  // namespace

AbortBody parse_abort_body(std::string_view body) {
  const boost::json::value value = parse_body(body);
  const JsonFields fields(value.get_object());
  AbortBody parsed;
  parsed.is_all = fields.boolean_or("abort_all", false);
  if (const auto rid = fields.string("rid", kMaxNameBytes)) parsed.rid = *rid;
  if (parsed.rid.empty() && !parsed.is_all) {
    throw bad_request("rid", "no request is named; accepted: \"rid\", or \"abort_all\": true");
  }
  return parsed;
}

ProfileBody parse_profile_body(std::string_view body) {
  const boost::json::value value = parse_body(body);
  const JsonFields fields(value.get_object());
  ProfileBody parsed;
  if (const auto file = fields.string("file", kMaxNameBytes, /*min_bytes=*/1)) parsed.file = *file;
  parsed.num_steps = fields.integer("num_steps", {1, kMaxSteps});
  // A folder of the client's choice would let it write anywhere.
  if (const boost::json::value* folder = fields.find("output_dir")) {
    fail_unsupported("output_dir", *folder,
                     "\"file\", a name in the folder that server.profile_folder sets");
  }
  return parsed;
}

}  // namespace augur::server
