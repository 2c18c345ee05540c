#include "engine/server/api_error.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

namespace augur::server {
namespace {

namespace json = boost::json;

json::value string_or_null(const std::string& text) {
  return text.empty() ? json::value() : json::value(text);
}

}  // namespace

ApiError bad_request(std::string param, std::string message, std::string code) {
  return ApiError(400, "invalid_request_error", std::move(code), std::move(param),
                  std::move(message));
}

std::string error_body(const ApiError& error) {
  return json::serialize(json::object{{"error",
                                       {{"message", error.message},
                                        {"type", error.type},
                                        {"param", string_or_null(error.param)},
                                        {"code", string_or_null(error.code)}}}});
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = error_body(error);
  if (error.retry_after_s) {
    response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after_s));
  }
  return response;
}

std::string error_event(const ApiError& error) {
  return "data: " + error_body(error) + "\n\n";
}

}  // namespace augur::server
