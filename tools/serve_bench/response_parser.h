// One HTTP/1.1 response from a stream of bytes that may be split anywhere.
//
// States: head -> body (of a given length, in chunks, or up to the connection's end) -> done; or
// malformed. Interim responses (1xx) are passed over.
// Threading: one thread.
// Source: RFC 9112, as a client reads it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace augur::serve_bench {

/// What is kept of the status line and the header.
struct ResponseHead {
  int status = 0;
  bool is_event_stream = false;
  bool keeps_alive = true;               // the connection serves another request
  std::optional<int64_t> retry_after_s;  // where it is a number of seconds
};

class ResponseParser {
 public:
  static constexpr size_t kMaxHeadBytes = size_t{64} << 10;

  void reset() { *this = ResponseParser(); }
  /// Takes the next bytes and appends those of the body to `body`. False when the response is
  /// malformed; error() says how.
  bool feed(std::string_view bytes, std::string& body);
  /// The connection has ended. True where that, or what came before, completes the response.
  bool end_of_input();

  bool has_head() const { return state_ != State::kHead; }
  bool is_done() const { return state_ == State::kDone; }
  /// Bytes came after the end: the connection cannot be used again.
  bool has_excess() const { return has_excess_; }
  const ResponseHead& head() const { return head_; }
  const std::string& error() const { return error_; }

 private:
  enum class State : uint8_t {
    kHead,
    kFixed,
    kUntilClose,
    kChunkSize,
    kChunkData,
    kChunkEnd,
    kTrailer,
    kDone
  };

  bool take_line(std::string_view& bytes);  // true when line_ is whole, without its end
  void take_body(std::string_view& bytes, std::string& body);
  bool on_line();
  bool on_head_line();
  bool on_status_line();
  bool on_header(std::string_view name, std::string_view value);
  bool on_head_end();
  bool on_chunk_size();
  bool fail(std::string what);

  State state_ = State::kHead;
  ResponseHead head_;
  std::string line_;
  size_t num_head_bytes_ = 0;
  bool has_status_ = false;
  bool is_chunked_ = false;
  std::optional<uint64_t> content_length_;
  uint64_t num_left_ = 0;  // bytes of the body, or of the chunk
  bool is_line_done_ = false;
  bool has_excess_ = false;
  std::string error_;
};

}  // namespace augur::serve_bench
