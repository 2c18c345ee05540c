// Messages for people, one line each, on stderr.
//
// Logged at the edges (start, configuration, a request, a failure), never per layer or step.
// Threading: any thread.
#pragma once

#include <fmt/core.h>

#include <functional>
#include <string_view>
#include <utility>

#include "configs/engine_config.h"

namespace augur {

/// Shows messages of `level` and more serious ones; kInfo until it is called.
void set_log_level(LogLevel level);

/// Whether messages of `level` are shown.
bool is_logged(LogLevel level);

/// Writes one line, "12:03:44 warning: text" (informative ones without the level). Line breaks in
/// the text become blanks, other control characters question marks: what a file holds cannot
/// steer the terminal.
void log_line(LogLevel level, std::string_view text);

/// Called before each line while something else (a progress bar) occupies the terminal's line.
/// An empty function ends that. Called by one owner at a time.
void set_before_log_line(std::function<void()> clear_line);

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  if (is_logged(LogLevel::kDebug))
    log_line(LogLevel::kDebug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  if (is_logged(LogLevel::kInfo))
    log_line(LogLevel::kInfo, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  if (is_logged(LogLevel::kWarning))
    log_line(LogLevel::kWarning, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  if (is_logged(LogLevel::kError))
    log_line(LogLevel::kError, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace augur
