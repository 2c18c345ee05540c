// How far a long job is: a bar on a terminal, a plain line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace augur {

/// A line of stderr that is redrawn in place on a terminal (at most ten times a second), and
/// written as a line of its own every ten seconds where there is none. Log lines push it aside.
/// Threading: any thread.
class StatusLine {
 public:
  using Clock = std::chrono::steady_clock;
  struct Target {
    int fd = 2;
    bool is_terminal = false;
    int num_columns = 80;
  };
  /// stderr as it is.
  static Target standard_error();

  explicit StatusLine(const Target& target = standard_error());
  ~StatusLine();
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;

  bool is_terminal() const { return target_.is_terminal; }
  /// Whether show would write now: worth asking before composing a text.
  bool is_due(Clock::time_point now = Clock::now()) const;
  void show(std::string_view text, Clock::time_point now = Clock::now());
  /// Takes the text off the terminal; plain lines stay.
  void clear();

 private:
  void write_all(std::string_view text);

  const Target target_;
  mutable std::mutex mutex_;
  Clock::time_point next_;
  bool is_drawn_ = false;
};

/// "[#####-----]  52 %"; `share` from 0 to 1, the bar `num_columns` wide.
std::string format_bar(double share, int num_columns);
/// "1.25 GB", "310 MB": decimal units, as for rates.
std::string format_decimal_bytes(double bytes);
/// "0:42", "1:02:03".
std::string format_duration(double seconds);
/// "1,234,567".
std::string format_count(int64_t count);
/// "50.1k", "987": three figures.
std::string format_rate(double per_second);

/// The bar of one phase that reads or writes bytes. Threading: one thread.
class ByteProgress {
 public:
  explicit ByteProgress(std::string label,
                        const StatusLine::Target& target = StatusLine::standard_error());
  /// `total_bytes` 0: not known, then there is no bar and no time left.
  void update(int64_t done_bytes,
              int64_t total_bytes,
              StatusLine::Clock::time_point now = StatusLine::Clock::now());

 private:
  const std::string label_;
  const StatusLine::Clock::time_point start_ = StatusLine::Clock::now();
  StatusLine line_;
};

}  // namespace augur
