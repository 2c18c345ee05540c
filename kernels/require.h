// Checks of documented requirements.
#pragma once

#include <stdexcept>
#include <string>

/// Throws std::logic_error with file, line, the condition and `message` when `cond` is false.
/// For requirements a caller broke; bad input from outside has its own errors.
#define AUGUR_REQUIRE(cond, message)                                                \
  do {                                                                              \
    if (!(cond)) [[unlikely]]                                                       \
      throw std::logic_error(std::string(__FILE__ ":") + std::to_string(__LINE__) + \
                             ": requires " #cond ": " + (message));                 \
  } while (false)
