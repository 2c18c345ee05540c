// What /v1/models says.
#include <fmt/format.h>

#include <algorithm>

#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/server/json_text.h"

namespace augur::server {
namespace {

void append_model(std::string_view name,
                  const ApiContext& context,
                  int64_t created_s,
                  std::string& out) {
  out += R"({"id":)";
  append_json_string(name, out);
  out += R"(,"object":"model","created":)";
  append_json_integer(created_s, out);
  out += R"(,"owned_by":"augur","root":)";
  append_json_string(context.model_names.front(), out);
  out += R"(,"parent":null,"max_model_len":)";
  append_json_integer(context.limits.max_context, out);
  out.push_back('}');
}

}  // namespace

std::string models_body(const ApiContext& context, int64_t created_s) {
  std::string out = R"({"object":"list","data":[)";
  for (const std::string& name : context.model_names) {
    if (&name != &context.model_names.front()) out.push_back(',');
    append_model(name, context, created_s, out);
  }
  out += "]}";
  return out;
}

std::string model_body(std::string_view name, const ApiContext& context, int64_t created_s) {
  const auto& names = context.model_names;
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    throw ApiError(
        404, "invalid_request_error", "model_not_found", "model",
        fmt::format("The model `{}` does not exist. Served: {}", name, fmt::join(names, ", ")));
  }
  std::string out;
  append_model(name, context, created_s, out);
  return out;
}

}  // namespace augur::server
