#include "tests/tools/fake_openai_server.h"

#include <fmt/format.h>

#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <mutex>
#include <thread>

namespace augur::serve_bench {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

std::string chunked(std::string_view bytes) {
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

std::string usage_event(std::string_view id, int64_t num_tokens, int64_t num_prompt_tokens) {
  return fmt::format(
      R"({{"id":"{}","choices":[],"usage":{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}}}})",
      id, num_prompt_tokens, num_tokens, num_prompt_tokens + num_tokens);
}

}  // namespace

FakeAnswer fake_json(int status, std::string_view body, std::string_view headers) {
  return {
      {fmt::format("HTTP/1.1 {} Said\r\nContent-Type: application/json\r\n{}Content-Length: "
                   "{}\r\n\r\n{}",
                   status, headers, body.size(), body)}};
}

FakeAnswer fake_stream(const std::vector<std::string>& events, int delay_ms) {
  FakeAnswer answer{
      {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
       "Transfer-Encoding: chunked\r\n\r\n"}};
  for (const std::string& event : events)
    answer.push_back({chunked(fmt::format("data: {}\n\n", event)), delay_ms});
  answer.push_back({"0\r\n\r\n"});
  return answer;
}

std::vector<std::string> fake_completion(int64_t num_tokens, int64_t num_prompt_tokens) {
  std::vector<std::string> events;
  for (int64_t i = 0; i < num_tokens; ++i)
    events.push_back(fmt::format(
        R"({{"id":"c","choices":[{{"index":0,"text":"t{}","finish_reason":null}}]}})", i));
  events.push_back(usage_event("c", num_tokens, num_prompt_tokens));
  events.emplace_back("[DONE]");
  return events;
}

std::vector<std::string> fake_chat(int64_t num_tokens, int64_t num_prompt_tokens) {
  std::vector<std::string> events{
      R"({"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]})"};
  for (int64_t i = 0; i < num_tokens; ++i)
    events.push_back(fmt::format(
        R"({{"id":"c","choices":[{{"index":0,"delta":{{"content":"t{}"}},"finish_reason":null}}]}})",
        i));
  events.push_back(usage_event("c", num_tokens, num_prompt_tokens));
  events.emplace_back("[DONE]");
  return events;
}

int64_t asked_tokens(const FakeRequest& request) {
  return boost::json::parse(request.body).at("max_tokens").as_int64();
}

class FakeOpenAiServer::Impl {
 public:
  explicit Impl(Script given) : script(std::move(given)) {}

  void accept();

  Script script;
  asio::io_context io{1};
  tcp::acceptor acceptor{io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)};
  std::thread thread;
  mutable std::mutex mutex;
  std::vector<FakeRequest> requests;  // under the mutex
  std::atomic<int64_t> num_connections{0};
  std::atomic<int64_t> num_broken{0};
  std::atomic<int64_t> num_posts{0};
};

namespace {

// One connection, answering a request at a time.
template <typename Server>
class Session : public std::enable_shared_from_this<Session<Server>> {
 public:
  Session(Server& server, tcp::socket socket, int64_t connection_idx)
      : server_(server), socket_(std::move(socket)), timer_(server.io), idx_(connection_idx) {}

  void read_header() {
    asio::async_read_until(socket_, asio::dynamic_buffer(input_), "\r\n\r\n",
                           [self = this->shared_from_this()](error_code error, size_t num_bytes) {
                             if (!error) self->on_header(num_bytes);
                           });
  }

 private:
  void on_header(size_t num_bytes) {
    request_ = FakeRequest{.connection_idx = idx_, .post_idx = -1};
    request_.header = input_.substr(0, num_bytes);
    input_.erase(0, num_bytes);
    const size_t blank = request_.header.find(' ');
    request_.method = request_.header.substr(0, blank);
    request_.path =
        request_.header.substr(blank + 1, request_.header.find(' ', blank + 1) - blank - 1);
    const size_t length_at = request_.header.find("Content-Length: ");
    const size_t length =
        length_at == std::string::npos ? 0 : std::stoul(request_.header.substr(length_at + 16));
    const size_t missing = length - std::min(length, input_.size());
    asio::async_read(socket_, asio::dynamic_buffer(input_), asio::transfer_exactly(missing),
                     [self = this->shared_from_this(), length](error_code error, size_t) {
                       if (error) return;
                       self->request_.body = self->input_.substr(0, length);
                       self->input_.erase(0, length);
                       self->answer();
                     });
  }

  void answer() {
    step_idx_ = 0;
    if (request_.method == "POST") {
      request_.post_idx = server_.num_posts++;
      {
        const std::lock_guard lock(server_.mutex);
        server_.requests.push_back(request_);
      }
      answer_ = server_.script(request_);
    } else if (request_.path == "/v1/models") {
      answer_ = fake_json(200, R"({"object":"list","data":[{"id":"fake","object":"model"}]})");
    } else if (request_.path == "/server_info") {
      answer_ = fake_json(200, R"({"model":{"vocab_size":1000}})");
    } else {
      answer_ = fake_json(404, R"({"error":{"message":"no such path"}})");
    }
    take_step();
  }

  void take_step() {
    if (step_idx_ == answer_.size()) return read_header();
    const int delay_ms = answer_[step_idx_].delay_ms;
    if (delay_ms == 0) return write();
    timer_.expires_after(std::chrono::milliseconds(delay_ms));
    timer_.async_wait([self = this->shared_from_this()](error_code error) {
      if (!error) self->write();
    });
  }

  void write() {
    asio::async_write(socket_, asio::buffer(answer_[step_idx_].bytes),
                      [self = this->shared_from_this()](error_code error, size_t) {
                        if (error) {
                          ++self->server_.num_broken;
                          return;
                        }
                        self->on_written();
                      });
  }

  void on_written() {
    const FakeStep::Then then = answer_[step_idx_++].then;
    if (then == FakeStep::Then::kGoOn) return take_step();
    error_code ignored;
    // A close that lingers for no time resets the connection.
    if (then == FakeStep::Then::kReset)
      socket_.set_option(asio::socket_base::linger(true, 0), ignored);
    socket_.close(ignored);
  }

  Server& server_;
  tcp::socket socket_;
  asio::steady_timer timer_;
  const int64_t idx_;
  std::string input_;
  FakeRequest request_;
  FakeAnswer answer_;
  size_t step_idx_ = 0;
};

}  // namespace

void FakeOpenAiServer::Impl::accept() {
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    if (error) return;
    socket.set_option(tcp::no_delay(true), error);
    std::make_shared<Session<Impl>>(*this, std::move(socket), num_connections++)->read_header();
    accept();
  });
}

FakeOpenAiServer::FakeOpenAiServer(Script script)
    : impl_(std::make_unique<Impl>(std::move(script))) {
  impl_->accept();
  impl_->thread = std::thread([this] { impl_->io.run(); });
}

FakeOpenAiServer::~FakeOpenAiServer() {
  impl_->io.stop();
  impl_->thread.join();
}

std::string FakeOpenAiServer::url() const {
  return fmt::format("http://127.0.0.1:{}", impl_->acceptor.local_endpoint().port());
}

std::vector<FakeRequest> FakeOpenAiServer::requests() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->requests;
}

int64_t FakeOpenAiServer::num_connections() const {
  return impl_->num_connections;
}
int64_t FakeOpenAiServer::num_broken() const {
  return impl_->num_broken;
}

}  // namespace augur::serve_bench
