#include "engine/server/api_error.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "engine/text/utf8.h"

namespace augur::server {
namespace {

// Messages quote what clients sent, which need not be UTF-8; JSON must be.
boost::json::value json_text(const std::string& text) {
  std::string storage;
  const std::string_view valid = valid_utf8_or_repaired(text, storage);
  return boost::json::string_view(valid.data(), valid.size());
}

boost::json::value text_or_null(const std::string& text) {
  return text.empty() ? boost::json::value(nullptr) : json_text(text);
}

}  // namespace

ApiError bad_request(std::string param, std::string message, std::string code) {
  return {400, "invalid_request_error", std::move(code), std::move(param), std::move(message)};
}

ApiError unavailable(std::string code, std::string message, int retry_after_s) {
  ApiError error(503, "server_error", std::move(code), "", std::move(message));
  error.retry_after_s = retry_after_s;
  return error;
}

ApiError overloaded(std::string message, int retry_after_s) {
  return unavailable("server_is_overloaded", std::move(message), retry_after_s);
}

ApiError engine_failed() {
  return {503, "server_error", "engine_failed", "", "the engine has failed"};
}

std::string error_body(const ApiError& error) {
  boost::json::object fields;
  fields["message"] = json_text(error.message);
  fields["type"] = json_text(error.type);
  fields["param"] = text_or_null(error.param);
  fields["code"] = text_or_null(error.code);
  boost::json::object body;
  body["error"] = std::move(fields);
  return boost::json::serialize(body);
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
