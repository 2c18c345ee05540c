// A blocking TCP client that says exactly what it is told, for tests of servers.
//
// Whatever takes longer than kPatience fails: a test that hangs ends, with what was received.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace augur::server {

struct RawResponse {
  int status = 0;
  std::string status_line;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // without its chunks' frames
  int num_chunks = 0;

  bool has(const std::string& name) const { return headers.count(name) > 0; }
  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

class RawClient {
 public:
  static constexpr std::chrono::seconds kPatience{30};

  /// `receive_bytes`: how much the kernel takes for us while we do not read; 0: its own choice.
  explicit RawClient(uint16_t port, int receive_bytes = 0) : socket_(make_socket(receive_bytes)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      const int error = errno;
      close();
      throw std::runtime_error("connect: errno " + std::to_string(error));
    }
  }
  ~RawClient() { close(); }
  RawClient(RawClient&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)), received_(std::move(other.received_)) {}
  RawClient& operator=(RawClient&&) = delete;

  void close() {
    if (socket_ >= 0) ::close(std::exchange(socket_, -1));
  }
  /// Ends our side of the stream.
  void half_close() { ::shutdown(socket_, SHUT_WR); }
  void reset() {
    const linger at_once{1, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close();
  }

  /// Sends all of it; false when the server is gone.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return true;
  }

  /// Takes what comes up to and with `end`.
  std::string read_until(std::string_view end) {
    size_t found = 0;
    while ((found = received_.find(end)) == std::string::npos) {
      if (!receive()) throw std::runtime_error("closed after \"" + received_ + "\"");
    }
    return take(found + end.size());
  }
  std::string read_bytes(size_t count) {
    while (received_.size() < count) {
      if (!receive()) throw std::runtime_error("closed after \"" + received_ + "\"");
    }
    return take(count);
  }
  /// Takes what comes until the server closes, or resets, the connection.
  std::string read_to_end() {
    while (receive()) {
    }
    return std::exchange(received_, {});
  }

  /// A whole answer. `is_head`: it was asked for without a body.
  RawResponse read_response(bool is_head = false) {
    RawResponse response = read_response_head();
    if (is_head) return response;
    if (response.header("transfer-encoding") == "chunked") {
      while (read_chunk(response)) {
      }
    } else if (response.has("content-length")) {
      response.body = read_bytes(std::stoul(response.header("content-length")));
    } else if (response.header("connection") == "close") {
      response.body = read_to_end();
    }
    return response;
  }
  RawResponse read_response_head() {
    RawResponse response;
    response.status_line = read_until("\r\n");
    if (response.status_line.rfind("HTTP/1.1 ", 0) != 0) {
      throw std::runtime_error("no status line: " + response.status_line);
    }
    response.status = std::stoi(response.status_line.substr(9));
    for (std::string line = read_until("\r\n"); line != "\r\n"; line = read_until("\r\n")) {
      const size_t colon = line.find(": ");
      std::string name = line.substr(0, colon);
      for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
      response.headers[name] = line.substr(colon + 2, line.size() - colon - 4);
    }
    return response;
  }
  /// Appends the next chunk; false at the last.
  bool read_chunk(RawResponse& response) {
    const size_t size = std::stoul(read_until("\r\n"), nullptr, 16);
    response.body += read_bytes(size);
    if (read_bytes(2) != "\r\n") throw std::runtime_error("a chunk without its end");
    if (size > 0) ++response.num_chunks;
    return size > 0;
  }

  int native_handle() const { return socket_; }

 private:
  static int make_socket(int receive_bytes) {
    const int made = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made < 0) throw std::runtime_error("socket: errno " + std::to_string(errno));
    if (receive_bytes > 0) {
      ::setsockopt(made, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    }
    return made;
  }

  bool receive() {
    pollfd ready{socket_, POLLIN, 0};
    const auto patience = std::chrono::milliseconds(kPatience).count();
    if (::poll(&ready, 1, static_cast<int>(patience)) <= 0) {
      throw std::runtime_error("nothing came after \"" + received_ + "\"");
    }
    char buffer[16 << 10];
    const ssize_t count = ::recv(socket_, buffer, sizeof(buffer), 0);
    if (count <= 0) return false;
    received_.append(buffer, static_cast<size_t>(count));
    return true;
  }
  std::string take(size_t count) {
    std::string taken = received_.substr(0, count);
    received_.erase(0, count);
    return taken;
  }

  int socket_;
  std::string received_;  // and not yet taken
};

}  // namespace augur::server
