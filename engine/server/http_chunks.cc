#include "engine/server/http_chunks.h"

#include <algorithm>

namespace augur::server {
namespace {

constexpr int kMaxSizeDigits = 15;  // fits int64_t

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

ChunkDecoder::Outcome ChunkDecoder::decode(std::string_view& bytes, std::string& body) {
  while (!bytes.empty()) {
    if (state_ == State::kData) {
      const auto count = std::min(static_cast<size_t>(chunk_bytes_), bytes.size());
      body.append(bytes.substr(0, count));
      bytes.remove_prefix(count);
      chunk_bytes_ -= static_cast<int64_t>(count);
      if (chunk_bytes_ == 0) state_ = State::kDataCr;
      continue;
    }
    const Outcome outcome = take(bytes.front());
    bytes.remove_prefix(1);
    if (outcome != Outcome::kMore) return outcome;
  }
  return Outcome::kMore;
}

ChunkDecoder::Outcome ChunkDecoder::take(char c) {
  switch (state_) {
    case State::kSize:
      return take_size(c);
    case State::kExtension:
      return take_extension(c);
    case State::kSizeEnd:
      num_digits_ = 0;
      return expect(c, '\n', chunk_bytes_ > 0 ? State::kData : State::kTrailerBegin);
    case State::kData:
      break;  // taken whole by decode()
    case State::kDataCr:
      return expect(c, '\r', State::kDataLf);
    case State::kDataLf:
      return expect(c, '\n', State::kSize);
    case State::kTrailerBegin:
      if (c == '\r') return expect(c, '\r', State::kLastEnd);
      if (c == ' ' || c == '\t') return Outcome::kMalformed;  // a folded line
      state_ = State::kTrailer;
      return take_extra(c, State::kTrailerEnd);
    case State::kTrailer:
      return take_extra(c, State::kTrailerEnd);
    case State::kTrailerEnd:
      return expect(c, '\n', State::kTrailerBegin);
    case State::kLastEnd:
      return c == '\n' ? Outcome::kDone : Outcome::kMalformed;
  }
  return Outcome::kMalformed;
}

ChunkDecoder::Outcome ChunkDecoder::take_size(char c) {
  const int digit = hex_digit(c);
  if (digit >= 0) {
    if (++num_digits_ > kMaxSizeDigits) return Outcome::kMalformed;
    chunk_bytes_ = chunk_bytes_ << 4 | digit;
    return Outcome::kMore;
  }
  if (num_digits_ == 0 || (c != '\r' && c != ';')) return Outcome::kMalformed;
  if (chunk_bytes_ > max_body_bytes_ - body_bytes_) return Outcome::kBodyTooLarge;
  body_bytes_ += chunk_bytes_;
  state_ = c == ';' ? State::kExtension : State::kSizeEnd;
  return Outcome::kMore;
}

// Some look for a quote's end beyond the line's; what they disagree about with us is refused.
ChunkDecoder::Outcome ChunkDecoder::take_extension(char c) {
  if (c == '\r' && is_quoted_) return Outcome::kMalformed;
  if (c == '"' && !is_escaped_) is_quoted_ = !is_quoted_;
  is_escaped_ = is_quoted_ && c == '\\' && !is_escaped_;
  return take_extra(c, State::kSizeEnd);
}

// A byte of a line that is passed over up to its CR.
ChunkDecoder::Outcome ChunkDecoder::take_extra(char c, State at_cr) {
  if (c == '\r') {
    state_ = at_cr;
    return Outcome::kMore;
  }
  if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == '\x7f') {
    return Outcome::kMalformed;
  }
  return ++extra_bytes_ > max_extra_bytes_ ? Outcome::kExtrasTooLarge : Outcome::kMore;
}

ChunkDecoder::Outcome ChunkDecoder::expect(char c, char expected, State next) {
  if (c != expected) return Outcome::kMalformed;
  state_ = next;
  return Outcome::kMore;
}

}  // namespace augur::server
