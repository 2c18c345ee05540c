// What a streamed event costs the server's thread: N streams on the loopback interface get events
// in steps, as an engine's batch makes them, one hand-over a step. Beside it, in the same run, the
// bound: one bare send() of the same bytes per event.
//
// The clients are one thread that reads whatever comes. On loopback the sender's system call also
// does the receiving side's work, for server and bound alike.
#include <arpa/inet.h>
#include <benchmark/benchmark.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/server/http_server.h"

namespace augur::server {
namespace {

// As long as the event of a token is.
const std::string kEvent =
    "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\","
    "\"created\":1700000000,\"model\":\"model\",\"choices\":[{\"index\":0,\"delta\":{\"content\":"
    "\" token\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
// What a chunk has around it.
const size_t kFrameBytes = fmt::format("{:x}\r\n\r\n", kEvent.size()).size();

void check(bool is_good, const char* what) {
  if (is_good) return;
  std::perror(what);
  std::exit(1);
}

double thread_cpu_us() {
  timespec now{};
  check(::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0, "clock_gettime");
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

int connect_to(uint16_t port) {
  const int made = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(made >= 0, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  check(::connect(made, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0, "connect");
  return made;
}

// The reading ends of all streams, on a thread.
class Readers {
 public:
  explicit Readers(std::vector<int> sockets)
      : sockets_(std::move(sockets)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    check(epoll_ >= 0, "epoll_create1");
    for (const int socket : sockets_) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.fd = socket;
      check(::epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event) == 0, "epoll_ctl");
    }
    thread_ = std::thread([this] { run(); });
  }
  ~Readers() {
    is_stopping_ = true;
    thread_.join();
    ::close(epoll_);
    for (const int socket : sockets_) ::close(socket);
  }
  int64_t num_bytes() const { return num_bytes_; }
  void wait_for(int64_t num_bytes) const {
    while (num_bytes_ < num_bytes) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

 private:
  void run() {
    std::vector<char> buffer(64 << 10);
    std::array<epoll_event, 256> events;
    while (!is_stopping_) {
      const int count = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 50);
      for (int i = 0; i < count; ++i) {
        const int socket = events[static_cast<size_t>(i)].data.fd;
        const ssize_t bytes = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (bytes > 0) num_bytes_ += bytes;
      }
    }
  }

  const std::vector<int> sockets_;
  const int epoll_;
  std::atomic<int64_t> num_bytes_ = 0;
  std::atomic<bool> is_stopping_ = false;
  std::thread thread_;
};

// A server whose streams all get an event per step.
class StreamServer {
 public:
  explicit StreamServer(int num_streams)
      : server_({.port = 0, .max_connections = 8192},
                nullptr,
                [this](HttpRequest&&, std::shared_ptr<Reply> reply) {
                  reply->begin_stream();
                  replies_.push_back(std::move(reply));
                  num_replies_ = static_cast<int>(replies_.size());
                }),
        thread_([this] { server_.run(); }) {
    std::vector<int> sockets;
    const std::string_view request = "GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (int i = 0; i < num_streams; ++i) {
      sockets.push_back(connect_to(server_.port()));
      const ssize_t sent = ::send(sockets.back(), request.data(), request.size(), MSG_NOSIGNAL);
      check(sent == std::ssize(request), "send");
    }
    while (num_replies_ < num_streams) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    readers_ = std::make_unique<Readers>(std::move(sockets));
    // The heads are through once no more comes.
    for (int64_t seen = -1; seen != readers_->num_bytes();) {
      seen = readers_->num_bytes();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  ~StreamServer() {
    server_.stop();
    thread_.join();
  }

  void step() {
    const int64_t before = readers_->num_bytes();
    server_.post([this] {
      for (const auto& reply : replies_) reply->write(kEvent);
    });
    const auto event_bytes = static_cast<int64_t>(kEvent.size() + kFrameBytes);
    readers_->wait_for(before + event_bytes * std::ssize(replies_));
  }
  double cpu_us() {
    std::promise<double> promise;
    server_.post([&] { promise.set_value(thread_cpu_us()); });
    return promise.get_future().get();
  }

 private:
  std::vector<std::shared_ptr<Reply>> replies_;
  std::atomic<int> num_replies_ = 0;
  HttpServer server_;
  std::thread thread_;
  std::unique_ptr<Readers> readers_;
};

void set_counters(benchmark::State& state, double cpu_us) {
  const double num_events = static_cast<double>(state.iterations() * state.range(0));
  state.counters["cpu_us_per_event"] = cpu_us / num_events;
  state.counters["events_per_s"] = benchmark::Counter(num_events, benchmark::Counter::kIsRate);
}

void BM_StreamedEvents(benchmark::State& state) {
  StreamServer server(static_cast<int>(state.range(0)));
  server.step();  // buffers get their size
  const double before_us = server.cpu_us();
  for (auto _ : state) server.step();
  set_counters(state, server.cpu_us() - before_us);
}

// The same bytes by plain sends from one thread.
void BM_BareSends(benchmark::State& state) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  check(listener >= 0, "socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  check(::bind(listener, reinterpret_cast<sockaddr*>(&address), length) == 0, "bind");
  check(::listen(listener, 4096) == 0, "listen");
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  std::vector<int> near;
  std::vector<int> far;
  for (int64_t i = 0; i < state.range(0); ++i) {
    far.push_back(connect_to(ntohs(address.sin_port)));
    near.push_back(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    check(near.back() >= 0, "accept4");
    const int yes = 1;
    ::setsockopt(near.back(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  }
  double cpu_us = 0;
  {
    Readers readers(std::move(far));
    const std::string frame = kEvent + std::string(kFrameBytes, '-');
    for (auto _ : state) {
      const int64_t before = readers.num_bytes();
      const double before_us = thread_cpu_us();
      for (const int socket : near) {
        check(::send(socket, frame.data(), frame.size(), MSG_NOSIGNAL) == std::ssize(frame),
              "send");
      }
      cpu_us += thread_cpu_us() - before_us;
      readers.wait_for(before + std::ssize(frame) * std::ssize(near));
    }
  }
  set_counters(state, cpu_us);
  for (const int socket : near) ::close(socket);
  ::close(listener);
}

BENCHMARK(BM_BareSends)->ArgName("streams")->Arg(1)->Arg(100)->Arg(1000)->UseRealTime();
BENCHMARK(BM_StreamedEvents)->ArgName("streams")->Arg(1)->Arg(100)->Arg(1000)->UseRealTime();

}  // namespace
}  // namespace augur::server

int main(int argc, char** argv) {
  // Both ends of a thousand connections are ours.
  rlimit descriptors{};
  ::getrlimit(RLIMIT_NOFILE, &descriptors);
  descriptors.rlim_cur = descriptors.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &descriptors);
  fmt::print("events of {} bytes; cpu_us_per_event is the sending thread's\n",
             augur::server::kEvent.size());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
