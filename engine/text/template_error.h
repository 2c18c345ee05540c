// The error for a chat template that cannot be rendered with the input it was given.
#pragma once

#include <stdexcept>
#include <string>

namespace augur {

/// Thrown while rendering: raise_exception() in the template, an operation that Jinja2 refuses too
/// (an attribute of an undefined value, an index into None), or a limit of the sandbox.
/// what() is "WHERE:LINE: message"; message() is the bare sentence, fit to be returned to whoever
/// sent the conversation.
class TemplateError : public std::runtime_error {
 public:
  explicit TemplateError(const std::string& message)
      : std::runtime_error(message), message_(message) {}
  TemplateError(const std::string& where, int line, const std::string& message)
      : std::runtime_error(where + ":" + std::to_string(line) + ": " + message),
        message_(message),
        line_(line) {}

  const std::string& message() const { return message_; }
  /// Line of the template, from 1; 0 when the error did not come from a place in it.
  int line() const { return line_; }

 private:
  std::string message_;
  int line_ = 0;
};

}  // namespace augur
