// The body of a request in chunks (RFC 9112, section 7.1).
//
// Strict: a size is 1 to 15 hexadecimal digits, ended by CRLF or by ';' and an extension, which is
// passed over, as trailers are; its quotes have to end. All extensions and trailers of a body
// together have a bound.
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace augur::server {

class ChunkDecoder {
 public:
  enum class Outcome : uint8_t { kMore, kDone, kMalformed, kBodyTooLarge, kExtrasTooLarge };

  ChunkDecoder(int64_t max_body_bytes, int64_t max_extra_bytes)
      : max_body_bytes_(max_body_bytes), max_extra_bytes_(max_extra_bytes) {}

  /// Appends data to `body` and takes what was used away from `bytes`: all of it but for what
  /// follows the body's end. A size beyond max_body_bytes is refused before its data comes. Nothing
  /// is decoded after another outcome than kMore.
  Outcome decode(std::string_view& bytes, std::string& body);

 private:
  enum class State : uint8_t {
    kSize,
    kExtension,
    kSizeEnd,  // the LF of a size's line
    kData,
    kDataCr,
    kDataLf,
    kTrailerBegin,  // of a trailer's line, or of the last, empty line
    kTrailer,
    kTrailerEnd,
    kLastEnd,
  };

  Outcome take(char c);
  Outcome take_size(char c);
  Outcome take_extension(char c);
  Outcome take_extra(char c, State at_cr);
  Outcome expect(char c, char expected, State next);

  const int64_t max_body_bytes_;
  const int64_t max_extra_bytes_;
  State state_ = State::kSize;
  int num_digits_ = 0;
  bool is_quoted_ = false;   // within a quoted string of an extension
  bool is_escaped_ = false;  // after a backslash there
  int64_t chunk_bytes_ = 0;  // of the chunk's data, what is still to come
  int64_t body_bytes_ = 0;   // of all chunks whose size is known
  int64_t extra_bytes_ = 0;
};

}  // namespace augur::server
