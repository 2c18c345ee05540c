#include "tools/serve_bench/response_parser.h"

#include <algorithm>
#include <charconv>

namespace augur::serve_bench {
namespace {

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](char c) { return lower(c); });
  return result;
}

std::string_view trim(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

// Digits and nothing else.
template <typename T>
std::optional<T> parse_number(std::string_view text, int base = 10) {
  T value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value, base);
  if (text.empty() || text.front() == '-' || error != std::errc() || stop != end)
    return std::nullopt;
  return value;
}

}  // namespace

bool ResponseParser::fail(std::string what) {
  error_ = std::move(what);
  return false;
}

bool ResponseParser::feed(std::string_view bytes, std::string& body) {
  while (!bytes.empty()) {
    switch (state_) {
      case State::kFixed:
      case State::kUntilClose:
      case State::kChunkData:
        take_body(bytes, body);
        break;
      case State::kDone:
        has_excess_ = true;
        return true;
      default:
        if (take_line(bytes) && !on_line()) return false;
        if (line_.size() > kMaxHeadBytes || num_head_bytes_ > kMaxHeadBytes)
          return fail("a header of more than " + std::to_string(kMaxHeadBytes) + " bytes");
    }
  }
  return true;
}

bool ResponseParser::end_of_input() {
  if (state_ == State::kUntilClose) state_ = State::kDone;
  return is_done();
}

bool ResponseParser::take_line(std::string_view& bytes) {
  if (is_line_done_) line_.clear();
  const size_t lf = bytes.find('\n');
  is_line_done_ = lf != bytes.npos;
  const size_t num_taken = is_line_done_ ? lf + 1 : bytes.size();
  line_.append(bytes.substr(0, num_taken));
  bytes.remove_prefix(num_taken);
  num_head_bytes_ += num_taken;
  if (!is_line_done_) return false;
  line_.pop_back();
  if (line_.ends_with('\r')) line_.pop_back();
  return true;
}

void ResponseParser::take_body(std::string_view& bytes, std::string& body) {
  const uint64_t num_taken =
      state_ == State::kUntilClose ? bytes.size() : std::min<uint64_t>(num_left_, bytes.size());
  body.append(bytes.substr(0, num_taken));
  bytes.remove_prefix(num_taken);
  if (state_ == State::kUntilClose) return;
  num_left_ -= num_taken;
  if (num_left_ == 0) state_ = state_ == State::kFixed ? State::kDone : State::kChunkEnd;
}

bool ResponseParser::on_line() {
  switch (state_) {
    case State::kHead:
      return on_head_line();
    case State::kChunkSize:
      return on_chunk_size();
    case State::kChunkEnd:
      if (!line_.empty()) return fail("a chunk longer than its size");
      state_ = State::kChunkSize;
      return true;
    default:  // kTrailer
      if (line_.empty()) state_ = State::kDone;
      return true;
  }
}

bool ResponseParser::on_head_line() {
  if (!has_status_) return on_status_line();
  if (line_.empty()) return on_head_end();
  const size_t colon = line_.find(':');
  if (colon == line_.npos || colon == 0) return fail("a header line without a name");
  return on_header(lower(std::string_view(line_).substr(0, colon)),
                   trim(std::string_view(line_).substr(colon + 1)));
}

bool ResponseParser::on_status_line() {
  const std::string_view line = line_;
  if (!line.starts_with("HTTP/1.") || line.size() < 12 || line[8] != ' ')
    return fail("not an HTTP/1 status line");
  const std::optional<int> status = parse_number<int>(line.substr(9, 3));
  if (!status || *status < 100) return fail("not an HTTP/1 status line");
  head_.status = *status;
  head_.keeps_alive = line[7] != '0';
  has_status_ = true;
  return true;
}

bool ResponseParser::on_header(std::string_view name, std::string_view value) {
  if (name == "content-length") {
    const std::optional<uint64_t> length = parse_number<uint64_t>(value);
    if (!length || (content_length_ && content_length_ != length))
      return fail("a wrong Content-Length");
    content_length_ = length;
  } else if (name == "transfer-encoding") {
    if (lower(value) != "chunked") return fail("an unknown Transfer-Encoding");
    is_chunked_ = true;
  } else if (name == "connection") {
    const std::string words = lower(value);
    if (words.find("close") != words.npos) head_.keeps_alive = false;
    if (words.find("keep-alive") != words.npos) head_.keeps_alive = true;
  } else if (name == "content-type") {
    head_.is_event_stream = lower(value).starts_with("text/event-stream");
  } else if (name == "retry-after") {
    head_.retry_after_s = parse_number<int64_t>(value);
  }
  return true;
}

bool ResponseParser::on_head_end() {
  if (head_.status < 200) {  // interim; 101 is never asked for
    if (head_.status == 101) return fail("an upgrade that was not asked for");
    reset();
    return true;
  }
  if (head_.status == 204 || head_.status == 304) {
    state_ = State::kDone;
  } else if (is_chunked_) {
    if (content_length_) head_.keeps_alive = false;  // which of the two holds is unsure
    state_ = State::kChunkSize;
  } else if (content_length_) {
    num_left_ = *content_length_;
    state_ = num_left_ == 0 ? State::kDone : State::kFixed;
  } else {
    head_.keeps_alive = false;
    state_ = State::kUntilClose;
  }
  num_head_bytes_ = 0;
  return true;
}

bool ResponseParser::on_chunk_size() {
  num_head_bytes_ = 0;  // the bound is for each line here
  const std::string_view size = trim(std::string_view(line_).substr(0, line_.find(';')));
  const std::optional<uint64_t> length = parse_number<uint64_t>(size, 16);
  if (!length) return fail("a wrong chunk size");
  num_left_ = *length;
  state_ = num_left_ == 0 ? State::kTrailer : State::kChunkData;
  return true;
}

}  // namespace augur::serve_bench
