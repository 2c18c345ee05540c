// The error for bad input read from a file or the command line.
#pragma once

#include <stdexcept>
#include <string>

namespace augur {

/// What was found, where, and what would be accepted. `where` names the file and the key, tensor
/// or line in it; main prints what() and exits, the server maps it to a refusal.
class ConfigError : public std::runtime_error {
 public:
  ConfigError(const std::string& where, const std::string& what)
      : std::runtime_error(where + ": " + what) {}
};

}  // namespace augur
