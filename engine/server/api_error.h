// What a client is told when its request is refused: OpenAI's nested error body.
#pragma once

#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "engine/server/http_message.h"

namespace augur::server {

/// {"error": {"message", "type", "param", "code"}} with a status. `param` is the request's field as
/// a path ("messages[2].role", "logit_bias.17"); it and `code` are null where empty.
class ApiError : public std::exception {
 public:
  ApiError(int status, std::string type, std::string code, std::string param, std::string message)
      : status(status),
        type(std::move(type)),
        code(std::move(code)),
        param(std::move(param)),
        message(std::move(message)) {}

  const char* what() const noexcept override { return message.c_str(); }

  int status;
  std::string type;
  std::string code;
  std::string param;
  std::string message;
  std::optional<int> retry_after_s;  // becomes the header Retry-After
};

/// 400 invalid_request_error. `code` may be empty: "context_length_exceeded", "unsupported_value".
ApiError bad_request(std::string param, std::string message, std::string code = "");

/// 503 server_error: what could be served another time, in so many seconds.
ApiError unavailable(std::string code, std::string message, int retry_after_s);
/// The same for a server that has as much to do as it takes: code server_is_overloaded.
ApiError overloaded(std::string message, int retry_after_s = 1);
/// 503 for good: the engine has failed.
ApiError engine_failed();

/// The JSON body, without a line break at its end.
std::string error_body(const ApiError& error);
HttpResponse error_response(const ApiError& error);
/// The same as an event of a stream that has begun: "data: {...}\n\n".
std::string error_event(const ApiError& error);

}  // namespace augur::server
