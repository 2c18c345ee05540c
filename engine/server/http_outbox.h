// What a connection has still to send: bytes as they go over the wire, and the text of a stream
// that is collected to go out as one chunk.
//
// Threading: one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace augur::server {

class HttpOutbox {
 public:
  enum class Outcome : uint8_t {
    kAllSent,
    kBlocked,  // the socket takes no more for now
    kGone,     // and nobody will take it
  };

  /// Bytes to be sent before the stream's; appended to.
  std::string& wire() { return wire_; }

  /// Whether what follows of the stream is framed in chunks.
  void begin_stream(bool is_chunked);
  void write_stream(std::string_view text) { stream_ += text; }
  /// Adds the last chunk, where there are chunks.
  void end_stream() { needs_last_chunk_ = is_chunked_; }

  /// Frames what was written and offers everything to `socket`. Never waits. Adds to the counts of
  /// bytes and of system calls that sent some.
  Outcome send(int socket, int64_t& num_bytes, int64_t& num_writes);

  int64_t unsent_bytes() const;
  /// Forgets everything and frees its memory.
  void clear() { *this = {}; }

 private:
  void frame_stream();

  std::string stream_;
  bool is_chunked_ = false;
  bool needs_last_chunk_ = false;
  std::string wire_;     // the first num_sent_ bytes of it are sent
  size_t num_sent_ = 0;  // less than wire_.size(), or both are 0
};

}  // namespace augur::server
