#include "engine/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <utility>

#include "engine/log.h"

namespace augur {
namespace {

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);
constexpr auto kPlainInterval = std::chrono::seconds(10);

/// Cuts text to so many characters (not bytes: labels may be any UTF-8).
std::string_view first_characters(std::string_view text, int num_characters) {
  size_t end = 0;
  for (; end < text.size(); ++end) {
    const bool starts_character = (static_cast<unsigned char>(text[end]) & 0xc0) != 0x80;
    if (starts_character && num_characters-- == 0) break;
  }
  return text.substr(0, end);
}

}  // namespace

StatusLine::Target StatusLine::standard_error() {
  Target target{.fd = STDERR_FILENO, .is_terminal = isatty(STDERR_FILENO) == 1};
  // A dumb terminal (an editor's shell) does not understand the codes that clear a line.
  const char* kind = std::getenv("TERM");
  if (kind == nullptr || std::string_view(kind) == "dumb") target.is_terminal = false;
  winsize size{};
  if (target.is_terminal && ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    target.num_columns = size.ws_col;
  return target;
}

StatusLine::StatusLine(const Target& target) : target_(target) {
  // The first plain line comes after an interval: short jobs stay quiet.
  next_ = Clock::now() + (target.is_terminal ? Clock::duration::zero() : kPlainInterval);
  if (target_.is_terminal) set_before_log_line([this] { clear(); });
}

StatusLine::~StatusLine() {
  if (!target_.is_terminal) return;
  set_before_log_line({});
  clear();
}

bool StatusLine::is_due(Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  return now >= next_;
}

void StatusLine::show(std::string_view text, Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (now < next_) return;
  if (target_.is_terminal) {
    next_ = now + kRedrawInterval;
    // Back to the first column, the text, and clear what an earlier, longer one left. A terminal
    // wraps after its last column, so that one stays free.
    write_all(fmt::format("\r{}\x1b[K", first_characters(text, target_.num_columns - 1)));
    is_drawn_ = true;
  } else {
    next_ = now + kPlainInterval;
    write_all(fmt::format("{}\n", text));
  }
}

void StatusLine::clear() {
  const std::lock_guard lock(mutex_);
  if (!is_drawn_) return;
  write_all("\r\x1b[K");
  is_drawn_ = false;
}

void StatusLine::write_all(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(target_.fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody to tell: stderr itself is gone
    text.remove_prefix(static_cast<size_t>(written));
  }
}

std::string format_bar(double share, int num_columns) {
  share = std::isfinite(share) ? std::clamp(share, 0.0, 1.0) : 0.0;
  const auto num_full = static_cast<size_t>(std::lround(share * num_columns));
  return fmt::format("[{}{}] {:3.0f} %", std::string(num_full, '#'),
                     std::string(static_cast<size_t>(num_columns) - num_full, '-'),
                     std::floor(share * 100));  // 100 % is only said when all is done
}

std::string format_decimal_bytes(double bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < kUnits.size()) {
    bytes /= 1000;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes,
                     unit == 0 || bytes >= 99.5 ? 0
                     : bytes >= 9.95            ? 1
                                                : 2,
                     kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds > 1e9) return "?";
  const auto whole = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string format_count(int64_t count) {
  std::string text = fmt::format("{}", count);
  const size_t first_digit = count < 0 ? 1 : 0;
  for (size_t at = text.size(); at > first_digit + 3;) text.insert(at -= 3, 1, ',');
  return text;
}

std::string format_rate(double per_second) {
  if (!std::isfinite(per_second)) return "?";
  if (per_second < 999.5) return fmt::format("{:.{}f}", per_second, per_second < 9.95 ? 1 : 0);
  const double thousands = per_second / 1000;
  return fmt::format("{:.{}f}k", thousands, thousands >= 99.95 ? 0 : thousands >= 9.995 ? 1 : 2);
}

ByteProgress::ByteProgress(std::string label, const StatusLine::Target& target)
    : label_(std::move(label)), line_(target) {}

void ByteProgress::update(int64_t done_bytes,
                          int64_t total_bytes,
                          StatusLine::Clock::time_point now) {
  if (!line_.is_due(now)) return;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const auto done = static_cast<double>(done_bytes);
  const double rate = seconds > 0 ? done / seconds : 0;
  std::string text = label_ + " ";
  if (total_bytes > 0) text += format_bar(done / static_cast<double>(total_bytes), 24) + "  ";
  text += fmt::format("{}  {}/s", format_decimal_bytes(done), format_decimal_bytes(rate));
  if (total_bytes > done_bytes && rate > 0) {
    text += "  " + format_duration(static_cast<double>(total_bytes - done_bytes) / rate) + " left";
  }
  line_.show(text, now);
}

}  // namespace augur
