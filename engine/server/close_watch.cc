#include "engine/server/close_watch.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace augur::server {
namespace {

int make_epoll() {
  const int descriptor = ::epoll_create1(EPOLL_CLOEXEC);
  if (descriptor < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return descriptor;
}

}  // namespace

CloseWatch::CloseWatch(boost::asio::io_context& io, Callback callback)
    : epoll_(io, make_epoll()), callback_(std::move(callback)) {
  wait();
}

bool CloseWatch::add(int socket, uint64_t id) {
  epoll_event event{};
  // Edges: one call for each change, so that a half-closed connection does not keep us awake.
  event.events = EPOLLRDHUP | EPOLLET;
  event.data.u64 = id;
  return ::epoll_ctl(epoll_.native_handle(), EPOLL_CTL_ADD, socket, &event) == 0;
}

void CloseWatch::wait() {
  epoll_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                    [this](const boost::system::error_code& error) {
                      if (error) return;
                      take_events();
                      wait();
                    });
}

void CloseWatch::take_events() {
  std::array<epoll_event, 128> events;
  const int count = ::epoll_wait(epoll_.native_handle(), events.data(),
                                 static_cast<int>(events.size()), /*timeout=*/0);
  // What did not fit makes the set readable again at once.
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    callback_(event.data.u64, (event.events & (EPOLLERR | EPOLLHUP)) != 0);
  }
}

}  // namespace augur::server
