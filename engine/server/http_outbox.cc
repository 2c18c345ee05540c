#include "engine/server/http_outbox.h"

#include <fmt/core.h>
#include <sys/socket.h>

#include <cerrno>
#include <iterator>
#include <utility>

namespace augur::server {
namespace {

constexpr size_t kKeptCapacityBytes = 16 << 10;  // of a buffer between its uses

void empty(std::string& buffer) {
  buffer.clear();
  if (buffer.capacity() > kKeptCapacityBytes) buffer = {};
}

}  // namespace

void HttpOutbox::begin_stream(bool is_chunked) {
  is_chunked_ = is_chunked;
  needs_last_chunk_ = false;
}

void HttpOutbox::frame_stream() {
  if (is_chunked_ && !stream_.empty()) {
    fmt::format_to(std::back_inserter(wire_), "{:x}\r\n", stream_.size());
    wire_ += stream_;
    wire_ += "\r\n";
  } else {
    wire_ += stream_;
  }
  empty(stream_);
  if (std::exchange(needs_last_chunk_, false)) wire_ += "0\r\n\r\n";
}

HttpOutbox::Outcome HttpOutbox::send(int socket, int64_t& num_bytes, int64_t& num_writes) {
  frame_stream();
  while (num_sent_ < wire_.size()) {
    const ssize_t count = ::send(socket, wire_.data() + num_sent_, wire_.size() - num_sent_,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) return Outcome::kGone;
    if (count < 0) {
      // A reader who never takes all would make the buffer grow; to move bytes each time is dear.
      if (num_sent_ > wire_.size() / 2) wire_.erase(0, std::exchange(num_sent_, 0));
      return Outcome::kBlocked;
    }
    num_sent_ += static_cast<size_t>(count);
    num_bytes += count;
    ++num_writes;
  }
  num_sent_ = 0;
  empty(wire_);
  return Outcome::kAllSent;
}

int64_t HttpOutbox::unsent_bytes() const {
  return std::ssize(wire_) - static_cast<int64_t>(num_sent_) + std::ssize(stream_);
}

}  // namespace augur::server
