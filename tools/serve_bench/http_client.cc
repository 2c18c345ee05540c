#include "tools/serve_bench/http_client.h"

#include <array>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <unordered_map>
#include <vector>

#include "configs/config_error.h"

namespace augur::serve_bench {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr size_t kReadBytes = 8 << 10;  // some events; thousands of connections have one each

}  // namespace

class HttpClient::Impl {
 public:
  class Connection;

  asio::io_context io{/*concurrency_hint=*/1};
  std::vector<tcp::endpoint> endpoints;
  std::string common_headers;
  std::string path_prefix;
  Clock::duration timeout{};
  ClientCounters counters;
  std::vector<std::shared_ptr<Connection>> idle;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> active;

  std::shared_ptr<Connection> take_connection();
  std::string message(std::string_view method, std::string_view path, std::string_view body) const;
};

// One connection and the request on it. Each request has an epoch: what was begun for an earlier
// one, and ends late, is known by it and passed over.
class HttpClient::Impl::Connection : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(Impl& client) : client_(client), socket_(client.io), deadline_(client.io) {}

  void start(std::string message, std::shared_ptr<ResponseHandler> handler) {
    message_ = std::move(message);
    handler_ = std::move(handler);
    parser_.reset();
    num_read_ = 0;
    is_reused_ = socket_.is_open();
    client_.counters.reused += is_reused_;
    wait_for_deadline();
    if (is_reused_) {
      exchange();
    } else {
      connect();
    }
  }

  void cancel() {
    if (handler_) end({HttpEnd::Kind::kCancelled, "cancelled"}, HttpClient::now_us());
  }

 private:
  void wait_for_deadline() {
    deadline_.expires_after(client_.timeout);
    deadline_.async_wait([self = shared_from_this(), epoch = epoch_](error_code error) {
      if (error || epoch != self->epoch_) return;
      self->end({HttpEnd::Kind::kTimeout, "no whole response in time"}, HttpClient::now_us());
    });
  }

  void connect() {
    ++client_.counters.connections;
    asio::async_connect(
        socket_, client_.endpoints,
        [self = shared_from_this(), epoch = epoch_](error_code error, const tcp::endpoint&) {
          if (epoch != self->epoch_) return;
          if (error) {
            self->end({HttpEnd::Kind::kConnectFailed, error.message()}, HttpClient::now_us());
            return;
          }
          error_code ignored;
          self->socket_.set_option(tcp::no_delay(true), ignored);
          self->exchange();
        });
  }

  // Reads while it writes: a server may refuse a body before it has it.
  void exchange() {
    is_written_ = false;
    asio::async_write(socket_, asio::buffer(message_),
                      [self = shared_from_this(), epoch = epoch_](error_code error, size_t) {
                        // An error shows in reading too.
                        if (epoch == self->epoch_ && !error) self->is_written_ = true;
                      });
    read();
  }

  void read() {
    socket_.async_read_some(asio::buffer(buffer_), [self = shared_from_this(), epoch = epoch_](
                                                       error_code error, size_t num_bytes) {
      if (epoch == self->epoch_) self->on_read(error, num_bytes);
    });
  }

  void on_read(error_code error, size_t num_bytes) {
    const int64_t now_us = HttpClient::now_us();
    if (error) return on_read_error(error, now_us);
    num_read_ += static_cast<int64_t>(num_bytes);
    client_.counters.bytes_received += static_cast<int64_t>(num_bytes);
    body_.clear();
    const bool is_well_formed = parser_.feed({buffer_.data(), num_bytes}, body_);
    if (parser_.has_head() && !handler_->on_body(parser_.head(), body_, now_us))
      return end({HttpEnd::Kind::kCancelled, "cancelled"}, now_us);
    if (!is_well_formed) return end({HttpEnd::Kind::kMalformed, parser_.error()}, now_us);
    if (parser_.is_done()) return end({HttpEnd::Kind::kComplete, ""}, now_us);
    read();
  }

  void on_read_error(error_code error, int64_t now_us) {
    if (num_read_ == 0 && is_reused_) return send_again();
    if (error != asio::error::eof) return end({HttpEnd::Kind::kReset, error.message()}, now_us);
    if (parser_.end_of_input()) return end({HttpEnd::Kind::kComplete, ""}, now_us);
    end({HttpEnd::Kind::kClosed, "the connection was closed before the response was whole"},
        now_us);
  }

  void send_again() {
    ++client_.counters.resent;
    is_reused_ = false;
    ++epoch_;
    close();
    wait_for_deadline();
    connect();
  }

  void end(const HttpEnd& end, int64_t now_us) {
    ++epoch_;
    deadline_.cancel();
    const auto self = shared_from_this();
    const bool is_kept = end.kind == HttpEnd::Kind::kComplete && is_written_ &&
                         parser_.head().keeps_alive && !parser_.has_excess();
    if (!is_kept) close();
    client_.active.erase(this);
    const std::shared_ptr<ResponseHandler> handler = std::move(handler_);
    const ResponseHead head = parser_.has_head() ? parser_.head() : ResponseHead();
    if (is_kept) client_.idle.push_back(self);
    handler->on_end(head, end, now_us);  // may start the next request on this connection
  }

  void close() {
    error_code ignored;
    socket_.close(ignored);
  }

  Impl& client_;
  tcp::socket socket_;
  asio::steady_timer deadline_;
  uint64_t epoch_ = 0;
  std::string message_;
  std::shared_ptr<ResponseHandler> handler_;
  ResponseParser parser_;
  std::array<char, kReadBytes> buffer_;
  std::string body_;  // of the last read
  int64_t num_read_ = 0;
  bool is_reused_ = false;
  bool is_written_ = false;
};

std::shared_ptr<HttpClient::Impl::Connection> HttpClient::Impl::take_connection() {
  if (idle.empty()) return std::make_shared<Connection>(*this);
  std::shared_ptr<Connection> connection = std::move(idle.back());
  idle.pop_back();
  return connection;
}

std::string HttpClient::Impl::message(std::string_view method,
                                      std::string_view path,
                                      std::string_view body) const {
  std::string text;
  text.reserve(common_headers.size() + path.size() + body.size() + 128);
  text.append(method).append(" ").append(path_prefix).append(path).append(" HTTP/1.1\r\n");
  text.append(common_headers);
  if (method == "POST") {
    text.append("Content-Type: application/json\r\nContent-Length: ");
    text.append(std::to_string(body.size())).append("\r\n");
  }
  text.append("\r\n").append(body);
  return text;
}

HttpClient::HttpClient(const ServerUrl& url, const std::string& api_key, double timeout_s)
    : impl_(std::make_unique<Impl>()) {
  tcp::resolver resolver(impl_->io);
  error_code error;
  for (const auto& found : resolver.resolve(url.host, std::to_string(url.port), error))
    impl_->endpoints.push_back(found.endpoint());
  if (error || impl_->endpoints.empty())
    throw ConfigError("--url", "the host " + url.host + " is not known: " + error.message());
  impl_->timeout =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s));
  impl_->path_prefix = url.path_prefix;
  impl_->common_headers =
      "Host: " + url.authority() + "\r\nUser-Agent: augur-bench\r\nAccept: */*\r\n";
  if (!api_key.empty()) impl_->common_headers += "Authorization: Bearer " + api_key + "\r\n";
}

HttpClient::~HttpClient() = default;

int64_t HttpClient::now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch())
      .count();
}

void HttpClient::start(std::string_view method,
                       std::string_view path,
                       std::string_view body,
                       std::shared_ptr<ResponseHandler> handler) {
  const std::shared_ptr<Impl::Connection> connection = impl_->take_connection();
  impl_->active.emplace(connection.get(), connection);
  connection->start(impl_->message(method, path, body), std::move(handler));
}

void HttpClient::cancel_all() {
  std::vector<std::shared_ptr<Impl::Connection>> connections;
  for (const auto& [key, connection] : impl_->active) connections.push_back(connection);
  for (const auto& connection : connections) connection->cancel();
}

std::shared_ptr<void> HttpClient::call_at(int64_t time_us, std::function<void()> work) {
  struct Call {
    asio::steady_timer timer;
    std::function<void()> work;
  };
  const auto call = std::make_shared<Call>(Call{asio::steady_timer(impl_->io), std::move(work)});
  call->timer.expires_at(Clock::time_point(std::chrono::microseconds(time_us)));
  call->timer.async_wait([weak = std::weak_ptr<Call>(call)](error_code error) {
    const std::shared_ptr<Call> alive = weak.lock();
    if (!error && alive) alive->work();
  });
  return call;
}

void HttpClient::run(const std::function<bool()>& is_done) {
  impl_->io.restart();
  while (!is_done() && impl_->io.run_one() > 0) {
  }
}

const ClientCounters& HttpClient::counters() const {
  return impl_->counters;
}

}  // namespace augur::serve_bench
