#include "engine/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <memory>
#include <mutex>
#include <string>

namespace augur {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kOff:
      break;
  }
  return spdlog::level::off;
}

struct Log {
  // Serialises lines with the bar's owner, too: spdlog's own lock does not cover before_line.
  std::mutex mutex;
  std::function<void()> before_line;
  spdlog::logger logger{"augur", std::make_shared<spdlog::sinks::stderr_sink_st>()};
  Log() { logger.set_pattern("%H:%M:%S %v"); }
};

/// Made on first use and never destroyed: threads may log while the program ends.
Log& log() {
  static Log* const instance = new Log;
  return *instance;
}

}  // namespace

void set_log_level(LogLevel level) {
  log().logger.set_level(spdlog_level(level));
}

bool is_logged(LogLevel level) {
  return log().logger.should_log(spdlog_level(level));
}

void log_line(LogLevel level, std::string_view text) {
  if (level == LogLevel::kOff || !is_logged(level)) return;
  std::string line;
  if (level != LogLevel::kInfo)
    line = std::string(kEnumWords<LogLevel>[static_cast<size_t>(level)]) + ": ";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    line += c == '\n' || c == '\t' ? ' ' : byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  Log& target = log();
  const std::lock_guard lock(target.mutex);
  if (target.before_line) target.before_line();
  target.logger.log(spdlog_level(level), spdlog::string_view_t(line.data(), line.size()));
  target.logger.flush();
}

void set_before_log_line(std::function<void()> clear_line) {
  const std::lock_guard lock(log().mutex);
  log().before_line = std::move(clear_line);
}

}  // namespace augur
