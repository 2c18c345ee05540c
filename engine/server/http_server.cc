#include "engine/server/http_server.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <utility>

#include "configs/config_error.h"
#include "engine/log.h"
#include "engine/server/http_connection.h"

namespace augur::server {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::milliseconds;

// Of those over max_connections, how many are given time to read why. Others get it without.
constexpr int64_t kMaxRefusedConnections = 256;
constexpr int kRetryAfterS = 1;

void check_options(const HttpOptions& options) {
  const auto check = [](bool is_good, const char* name) {
    if (!is_good) throw ConfigError("server", fmt::format("{} has to be positive", name));
  };
  check(options.max_connections > 0, "max_connections");
  check(options.max_header_bytes > 0 && options.max_header_bytes <= 1 << 30, "max_header_bytes");
  check(options.max_body_bytes > 0, "max_body_bytes");
  check(options.max_bodies_bytes > 0, "max_bodies_bytes");
  check(options.max_stream_buffer_bytes > 0, "max_stream_buffer_bytes");
  check(options.header_timeout.count() > 0, "header_timeout");
  check(options.body_timeout.count() > 0, "body_timeout");
  check(options.idle_timeout.count() > 0, "idle_timeout");
  check(options.write_timeout.count() > 0, "write_timeout");
  for (const std::string& path : options.open_paths) {
    bool is_normal = false;
    try {
      is_normal = normalise_target(path).path == path;
    } catch (const ApiError&) {
    }
    if (is_normal) continue;
    throw ConfigError("server", fmt::format("the open path \"{}\" would match no request; it "
                                            "has to be decoded, with a slash at its beginning and "
                                            "none at its end",
                                            path));
  }
}

// Often enough that deadlines are kept within a quarter.
milliseconds sweep_interval(const HttpOptions& options) {
  const milliseconds shortest = std::min(
      {options.header_timeout, options.body_timeout, options.idle_timeout, options.write_timeout});
  return std::clamp(shortest / 4, milliseconds(5), milliseconds(250));
}

tcp::endpoint endpoint_of(const HttpOptions& options) {
  boost::system::error_code error;
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  const auto address = asio::ip::make_address(host, error);
  if (error) {
    throw ConfigError(
        "server.host",
        fmt::format("\"{}\" is neither an IPv4 or IPv6 address nor \"localhost\"", options.host));
  }
  return {address, options.port};
}

ApiError too_many_connections() {
  return overloaded("the server has as many connections as it takes; try again later",
                    kRetryAfterS);
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpOptions& options, const ApiKeys* keys, Handler handler);
  ~Impl();

  void run();
  void post(std::function<void()> work) { asio::post(shared_.io, std::move(work)); }
  void stop_accepting();
  void stop();

  const std::string& host() const { return host_; }
  uint16_t port() const { return port_; }
  HttpCounters counters() const;

 private:
  void listen();
  void accept();
  void on_accept(const boost::system::error_code& error, tcp::socket socket);
  void add_connection(tcp::socket socket);
  void refuse_connection(tcp::socket socket);
  void refuse_briefly(int socket);
  bool refuse_without_descriptors();
  void sweep();
  void close_all();

  HttpShared shared_;
  tcp::acceptor acceptor_{shared_.io};
  asio::steady_timer sweep_timer_{shared_.io};
  const milliseconds sweep_interval_;
  std::string host_;
  uint16_t port_ = 0;
  uint64_t num_connections_ = 0;  // ever
  bool is_accepting_ = false;
  bool is_accept_failing_ = false;  // and was logged
  // Connections that are told 503; they count beside those that are served.
  std::vector<std::weak_ptr<HttpConnection>> refused_;
  // Given up for a moment when there are no others, so that who connects then can be answered.
  int spare_descriptor_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
};

HttpServer::Impl::Impl(const HttpOptions& options, const ApiKeys* keys, Handler handler)
    : shared_(options, keys, std::move(handler)), sweep_interval_(sweep_interval(options)) {
  listen();
}

HttpServer::Impl::~Impl() {
  if (spare_descriptor_ >= 0) ::close(spare_descriptor_);
}

void HttpServer::Impl::listen() {
  const tcp::endpoint endpoint = endpoint_of(shared_.options);
  try {
    acceptor_.open(endpoint.protocol());
    acceptor_.set_option(tcp::acceptor::reuse_address(true));
    acceptor_.bind(endpoint);
    acceptor_.listen(asio::socket_base::max_listen_connections);
    host_ = acceptor_.local_endpoint().address().to_string();
    port_ = acceptor_.local_endpoint().port();
  } catch (const boost::system::system_error& error) {
    throw ConfigError("server.host, server.port",
                      fmt::format("cannot listen on {} port {}: {}", shared_.options.host,
                                  shared_.options.port, error.code().message()));
  }
}

void HttpServer::Impl::run() {
  accept();
  sweep();
  shared_.io.run();
  close_all();
}

void HttpServer::Impl::accept() {
  if (!acceptor_.is_open() || std::exchange(is_accepting_, true)) return;
  acceptor_.async_accept([this](const boost::system::error_code& error, tcp::socket socket) {
    is_accepting_ = false;
    on_accept(error, std::move(socket));
  });
}

void HttpServer::Impl::on_accept(const boost::system::error_code& error, tcp::socket socket) {
  if (!acceptor_.is_open()) return;
  if (!error) {
    ++shared_.counters.connections;
    is_accept_failing_ = false;
    add_connection(std::move(socket));
    return accept();
  }
  const int code = error.value();  // errno, as all of Asio's are that accept() ends with
  if ((code == EMFILE || code == ENFILE) && refuse_without_descriptors()) return accept();
  if (code == ECONNABORTED) return accept();
  // What is wrong would be wrong again at once; the next sweep tries anew.
  if (std::exchange(is_accept_failing_, true)) return;
  log_warning("cannot accept connections: {}", ::strerrordesc_np(code));
}

void HttpServer::Impl::add_connection(tcp::socket socket) {
  std::erase_if(refused_, [](const auto& connection) { return connection.expired(); });
  const int64_t num_served = std::ssize(shared_.connections) - std::ssize(refused_);
  if (num_served >= shared_.options.max_connections) {
    return refuse_connection(std::move(socket));
  }
  boost::system::error_code ignored;  // it would only be slower
  socket.set_option(tcp::no_delay(true), ignored);
  const uint64_t id = ++num_connections_;
  if (!shared_.close_watch.add(socket.native_handle(), id)) return;
  const auto connection = std::make_shared<HttpConnection>(shared_, std::move(socket), id);
  shared_.connections.emplace(id, connection);
  connection->start();
}

void HttpServer::Impl::refuse_connection(tcp::socket socket) {
  ++shared_.counters.refused_connections;
  if (std::ssize(refused_) >= kMaxRefusedConnections) {
    return refuse_briefly(socket.native_handle());
  }
  const uint64_t id = ++num_connections_;
  const auto connection = std::make_shared<HttpConnection>(shared_, std::move(socket), id);
  shared_.connections.emplace(id, connection);
  refused_.push_back(connection);
  connection->refuse(too_many_connections());
}

// What the socket takes at once; the caller closes it.
void HttpServer::Impl::refuse_briefly(int socket) {
  const HttpResponse response = error_response(too_many_connections());
  const std::string request_id = shared_.make_request_id();
  ResponseHead head;
  head.status = response.status;
  head.content_type = response.content_type;
  head.request_id = request_id;
  head.body_bytes = std::ssize(response.body);
  head.closes = true;
  head.headers = &response.headers;
  std::string bytes;
  append_head(head, shared_.date.now(), bytes);
  bytes += response.body;
  // Too little to fill an empty buffer. Who is gone already misses nothing.
  (void)::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  ::shutdown(socket, SHUT_WR);
  (void)::recv(socket, shared_.read_buffer.data(), shared_.read_buffer.size(), MSG_DONTWAIT);
}

// Answers one of those that wait, by the descriptor kept for it. False when that did not work.
bool HttpServer::Impl::refuse_without_descriptors() {
  if (spare_descriptor_ < 0) spare_descriptor_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (spare_descriptor_ < 0) return false;
  ::close(spare_descriptor_);
  const int socket = ::accept4(acceptor_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC);
  if (socket >= 0) {
    ++shared_.counters.connections;
    ++shared_.counters.refused_connections;
    refuse_briefly(socket);
    ::close(socket);
  }
  spare_descriptor_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  return socket >= 0;
}

// One timer for all connections: to set one for each of a thousand streams' writes costs more.
void HttpServer::Impl::sweep() {
  const auto now = HttpShared::Clock::now();
  std::vector<std::shared_ptr<HttpConnection>> connections;  // some go while we look
  connections.reserve(shared_.connections.size());
  for (const auto& [id, connection] : shared_.connections) connections.push_back(connection);
  for (const auto& connection : connections) connection->check_deadline(now);
  accept();
  sweep_timer_.expires_after(sweep_interval_);
  sweep_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) sweep();
  });
}

void HttpServer::Impl::stop_accepting() {
  post([this] {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    shared_.is_stopping = true;
    const auto connections = shared_.connections;  // some go while we look
    for (const auto& [id, connection] : connections) connection->close_if_idle();
  });
}

void HttpServer::Impl::stop() {
  post([this] {
    shared_.end_turn();  // what was written before goes out as far as it can
    shared_.io.stop();
  });
}

void HttpServer::Impl::close_all() {
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  const auto connections = std::exchange(shared_.connections, {});
  for (const auto& [id, connection] : connections) connection->abort();
  shared_.end_turn();
}

HttpCounters HttpServer::Impl::counters() const {
  HttpCounters counters = shared_.counters;
  counters.open_connections = std::ssize(shared_.connections);
  return counters;
}

HttpServer::HttpServer(const HttpOptions& options, const ApiKeys* keys, Handler handler) {
  check_options(options);
  impl_ = std::make_unique<Impl>(options, keys, std::move(handler));
}

HttpServer::~HttpServer() = default;

const std::string& HttpServer::host() const {
  return impl_->host();
}
uint16_t HttpServer::port() const {
  return impl_->port();
}
void HttpServer::run() {
  impl_->run();
}
void HttpServer::post(std::function<void()> work) {
  impl_->post(std::move(work));
}
void HttpServer::stop_accepting() {
  impl_->stop_accepting();
}
void HttpServer::stop() {
  impl_->stop();
}
HttpCounters HttpServer::counters() const {
  return impl_->counters();
}

}  // namespace augur::server
