// Server-sent events from a stream of bytes that may be split anywhere.
//
// Lines end with LF, CR LF or CR. Only the data of events is kept: its lines joined by LF; comments
// and other fields are passed over. An event that the stream does not finish is dropped.
// Threading: one thread.
// Source: WHATWG HTML, 9.2 Server-sent events.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace augur::serve_bench {

class SseParser {
 public:
  /// Bytes that an event, and what is kept of the stream, may have.
  static constexpr size_t kMaxEventBytes = size_t{16} << 20;

  void feed(std::string_view bytes);
  /// The data of the next event that is complete. It lies here until the next call of next() or
  /// feed().
  std::optional<std::string_view> next();
  /// An event was longer than kMaxEventBytes; nothing more comes.
  bool is_overlong() const { return is_overlong_; }
  void reset();

 private:
  std::optional<std::string_view> next_line();
  void take_field(std::string_view line);

  std::string buffer_;
  size_t begin_ = 0;      // of the first line not yet taken
  size_t scanned_ = 0;    // no line ends in [begin_, scanned_)
  bool skip_lf_ = false;  // the line before ended with a CR that was the last byte there was
  bool is_at_start_ = true;
  std::string data_;  // of the event under way
  bool has_data_ = false;
  std::string event_;  // what next() returned
  bool is_overlong_ = false;
};

}  // namespace augur::serve_bench
