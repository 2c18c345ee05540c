// Tells when peers close or reset their connections, whether or not anybody reads from them.
//
// While a request is being answered its connection is not read: what the client sends meanwhile
// stays in the kernel, within the kernel's bounds, and nothing is kept here. An end of the stream
// would then go unseen, so sockets are also in an epoll set that asks for nothing else
// (EPOLLRDHUP). Threading: the thread of the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstdint>
#include <functional>

namespace augur::server {

class CloseWatch {
 public:
  /// `is_reset`: the connection is gone altogether; else the peer has only ended its own stream.
  using Callback = std::function<void(uint64_t id, bool is_reset)>;

  /// Throws std::system_error when the kernel gives no epoll set.
  CloseWatch(boost::asio::io_context& io, Callback callback);

  /// Watches a socket until it is closed. May call back more than once, and for an `id` that has
  /// been closed since. False when the kernel refuses.
  bool add(int socket, uint64_t id);

 private:
  void wait();
  void take_events();

  boost::asio::posix::stream_descriptor epoll_;
  Callback callback_;
};

}  // namespace augur::server
