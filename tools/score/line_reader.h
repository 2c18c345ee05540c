// The lines of a file or of standard input, one at a time, in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace augur::score {

/// Input that cannot be read on.
class InputError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct InputLine {
  int64_t number = 0;     // from 1; blank lines count
  int64_t num_bytes = 0;  // with its line break
  uint64_t hash = 0;      // of number and text: tells whether a line is still the same
  bool is_too_long = false;
  std::string text;  // without the line break; empty when too long

  bool is_blank() const { return !is_too_long && text.find_first_not_of(" \t\r") == text.npos; }
};

/// Hash of a line as InputLine has it.
uint64_t hash_line(int64_t number, std::string_view text);

/// Threading: one thread.
class LineReader {
 public:
  static constexpr int64_t kMaxLineBytes = int64_t{64} << 20;

  /// Opens `path`, "-" for standard input. Throws ConfigError when that cannot be done.
  explicit LineReader(const std::string& path, int64_t max_line_bytes = kMaxLineBytes);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// Called while no input is there yet (a slow pipe), again every 100 ms; next() gives up when it
  /// returns false. Never called for a plain file.
  void set_while_waiting(std::function<bool()> while_waiting) {
    while_waiting_ = std::move(while_waiting);
  }

  /// Reads the next line. Returns false at the end of the input. Throws InputError.
  bool next(InputLine& line);

  /// Bytes of a plain file when it was opened; 0 for anything else.
  int64_t file_bytes() const { return file_bytes_; }

 private:
  bool fill();  // reads more into buffer_; false at the end

  const std::string name_;
  const int64_t max_line_bytes_;
  int fd_ = -1;
  int64_t file_bytes_ = 0;
  bool is_plain_file_ = false;
  std::function<bool()> while_waiting_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // unread bytes of buffer_: [begin_, end_)
  size_t end_ = 0;
  int64_t line_number_ = 0;
};

}  // namespace augur::score
