#include "tools/serve_bench/sse_parser.h"

#include <algorithm>
#include <cstring>

namespace augur::serve_bench {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

size_t find_byte(std::string_view text, char byte, size_t begin, size_t end) {
  const void* found = begin < end ? std::memchr(text.data() + begin, byte, end - begin) : nullptr;
  return found == nullptr ? end
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

}  // namespace

void SseParser::reset() {
  *this = SseParser();
}

void SseParser::feed(std::string_view bytes) {
  if (is_overlong_) return;
  buffer_.erase(0, begin_);
  scanned_ -= begin_;
  begin_ = 0;
  if (buffer_.size() + bytes.size() > kMaxEventBytes) {
    is_overlong_ = true;
    return;
  }
  buffer_.append(bytes);
}

std::optional<std::string_view> SseParser::next() {
  while (!is_overlong_) {
    const std::optional<std::string_view> line = next_line();
    if (!line) return std::nullopt;
    if (!line->empty()) {
      take_field(*line);
      continue;
    }
    if (!has_data_) continue;
    event_.swap(data_);
    data_.clear();
    has_data_ = false;
    return event_;
  }
  return std::nullopt;
}

std::optional<std::string_view> SseParser::next_line() {
  if (skip_lf_ && begin_ < buffer_.size()) {
    if (buffer_[begin_] == '\n') ++begin_;
    scanned_ = std::max(scanned_, begin_);
    skip_lf_ = false;
  }
  const size_t lf = find_byte(buffer_, '\n', scanned_, buffer_.size());
  const size_t end = find_byte(buffer_, '\r', scanned_, lf);
  scanned_ = end;
  if (end == buffer_.size()) return std::nullopt;
  std::string_view line(buffer_.data() + begin_, end - begin_);
  const bool is_cr = buffer_[end] == '\r';
  begin_ = end + 1;
  if (is_cr && begin_ == buffer_.size()) {
    skip_lf_ = true;
  } else if (is_cr && buffer_[begin_] == '\n') {
    ++begin_;
  }
  scanned_ = begin_;
  if (is_at_start_ && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  is_at_start_ = false;
  return line;
}

void SseParser::take_field(std::string_view line) {
  constexpr std::string_view kData = "data";
  if (!line.starts_with(kData)) return;
  std::string_view value = line.substr(kData.size());
  if (!value.empty()) {
    if (value.front() != ':') return;  // another field, whose name begins alike
    value.remove_prefix(1);
    if (value.starts_with(' ')) value.remove_prefix(1);
  }
  if (data_.size() + value.size() + 1 > kMaxEventBytes) {
    is_overlong_ = true;
    return;
  }
  if (has_data_) data_ += '\n';
  data_ += value;
  has_data_ = true;
}

}  // namespace augur::serve_bench
