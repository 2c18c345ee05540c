#include "engine/server/http_connection.h"

#include <fmt/core.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "engine/log.h"
#include "engine/server/api_keys.h"
#include "engine/server/http_reply.h"
#include "kernels/require.h"

namespace augur::server {
namespace {

using Socket = boost::asio::ip::tcp::socket;

constexpr std::chrono::milliseconds kLingerTime{2'000};
constexpr size_t kMaxRequestIdBytes = 128;

bool is_request_id(std::string_view id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) { return c > ' ' && c < '\x7f'; });
}

ApiError timed_out(std::string_view what, std::chrono::milliseconds limit) {
  return {408, "invalid_request_error", "request_timeout", "",
          fmt::format("the request's {} took longer than {} ms", what, limit.count())};
}

ApiError internal_error() {
  return {500, "server_error", "internal_error", "", "the server failed to answer the request"};
}

}  // namespace

HttpConnection::HttpConnection(HttpShared& shared, Socket socket, uint64_t id)
    : shared_(shared),
      socket_(std::move(socket)),
      id_(id),
      parser_(shared.options.max_header_bytes, shared.options.max_body_bytes) {}

// Reading.

void HttpConnection::start() {
  deadline_ = Clock::now() + shared_.options.idle_timeout;
  wait_readable();
}

void HttpConnection::wait_readable() {
  if (std::exchange(is_waiting_readable_, true)) return;
  socket_.async_wait(Socket::wait_read,
                     [self = shared_from_this()](const boost::system::error_code&) {
                       self->is_waiting_readable_ = false;
                       self->on_readable();
                     });
}

void HttpConnection::on_readable() {
  if (state_ != State::kReading && state_ != State::kLingering) return;
  std::vector<char>& buffer = shared_.read_buffer;
  const ssize_t count = ::recv(socket_.native_handle(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (count == 0) return close();
  if (count < 0 && errno != EAGAIN && errno != EINTR) return close();
  if (count > 0 && state_ == State::kReading) {
    return take({buffer.data(), static_cast<size_t>(count)});
  }
  wait_readable();
}

void HttpConnection::take(std::string_view bytes) {
  while (state_ == State::kReading && !bytes.empty()) {
    const HttpParser::State before = parser_.state();
    bytes.remove_prefix(parser_.feed(bytes));
    if (parser_.state() == HttpParser::State::kFailed) return refuse_request(parser_.error());
    note_progress(before);
    if (!holds_body())
      return refuse_request(overloaded("the server is reading as much as it has room for"));
    if (parser_.state() >= HttpParser::State::kBody && !std::exchange(is_head_checked_, true)) {
      check_head(/*is_body_here=*/!bytes.empty());
    }
    if (state_ == State::kReading && parser_.state() == HttpParser::State::kComplete) {
      unparsed_ = bytes;
      return dispatch();
    }
  }
  if (state_ == State::kReading) wait_readable();
}

bool HttpConnection::holds_body() {
  const int64_t num_bytes = std::ssize(parser_.body());
  if (num_bytes == 0) return true;
  if (!body_hold_) body_hold_ = BodyBudget::Hold(shared_.bodies);
  return body_hold_.resize(num_bytes);
}

void HttpConnection::note_progress(HttpParser::State before) {
  if (before == HttpParser::State::kIdle) {
    deadline_ = Clock::now() + shared_.options.header_timeout;
  }
  if (before < HttpParser::State::kBody && parser_.state() == HttpParser::State::kBody) {
    deadline_ = Clock::now() + shared_.options.body_timeout;
  }
}

// Everything that can be refused without the body is refused before the body is taken.
void HttpConnection::check_head(bool is_body_here) {
  const HttpHead& head = parser_.head();
  key_ = find_key();
  const auto& open = shared_.options.open_paths;
  if (shared_.keys != nullptr && key_ == nullptr &&
      std::find(open.begin(), open.end(), head.target.path) == open.end()) {
    return refuse_request(
        {401, "invalid_request_error", "invalid_api_key", "",
         head.authorization.empty()
             ? "no API key was given; send the header \"Authorization: Bearer KEY\""
             : "the API key is not one of this server's"});
  }
  if (head.expects_continue && !is_body_here && parser_.state() == HttpParser::State::kBody) {
    outbox_.wire() += "HTTP/1.1 100 Continue\r\n\r\n";
    mark_unflushed();
  }
}

const ApiKey* HttpConnection::find_key() const {
  return shared_.keys == nullptr ? nullptr : shared_.keys->find(parser_.head().authorization);
}

void HttpConnection::refuse_request(const ApiError& error) {
  ++(error.status == 401 ? shared_.counters.unauthorized : shared_.counters.bad_requests);
  refuse(error);
}

void HttpConnection::refuse(const ApiError& error) {
  begin_answer();
  closes_ = true;
  log_debug("refused a request ({}): {}", error.status, error.message);
  HttpResponse response = error_response(error);
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  queue_response(response);
}

// Answering.

void HttpConnection::begin_answer() {
  const HttpHead& head = parser_.head();
  state_ = State::kAnswering;
  answer_ = Answer::kAwaited;
  ++answer_idx_;
  request_id_ = is_request_id(head.request_id) ? head.request_id : shared_.make_request_id();
  is_head_request_ = head.method == "HEAD";
  closes_ = !head.keeps_alive || shared_.is_stopping;
  carries_events_ = false;
}

HttpRequest HttpConnection::make_request() {
  const HttpHead& head = parser_.head();
  HttpRequest request;
  request.method = is_head_request_ ? "GET" : head.method;
  request.path = head.target.path;
  request.query = head.target.query;
  request.content_type = head.content_type;
  request.body = std::move(parser_.body());
  request.body_hold = std::move(body_hold_);
  request.request_id = request_id_;
  if (key_ != nullptr) request.key_name = key_->name;
  request.is_admin = shared_.keys == nullptr || (key_ != nullptr && key_->is_admin);
  return request;
}

void HttpConnection::dispatch() {
  ++shared_.counters.requests;
  begin_answer();
  const uint64_t answer_idx = answer_idx_;
  // Ours to the end of the turn: an exception destroys the handler's, which must not count as an
  // answer that nobody gives.
  const auto reply = std::make_shared<HttpReply>(weak_from_this(), answer_idx);
  try {
    shared_.handler(make_request(), reply);
  } catch (const ApiError& error) {
    answer_error(answer_idx, error);
  } catch (const std::exception& error) {
    log_error("request {}: {}", request_id_, error.what());
    answer_error(answer_idx, internal_error());
  }
  // The end of its stream may have come with the request: who answers at once need not mind.
  if (is_peer_closed_ && is_open(answer_idx)) give_up();
}

void HttpConnection::answer_error(uint64_t answer_idx, const ApiError& error) {
  if (!is_open(answer_idx)) return;
  if (answer_ == Answer::kAwaited) return queue_response(error_response(error));
  write(answer_idx, error_event(error));
  end(answer_idx);
}

bool HttpConnection::is_open(uint64_t answer_idx) const {
  return state_ == State::kAnswering && answer_idx == answer_idx_ && answer_ != Answer::kComplete;
}

void HttpConnection::send(uint64_t answer_idx, const HttpResponse& response) {
  if (!is_open(answer_idx)) return;
  AUGUR_REQUIRE(answer_ == Answer::kAwaited, "the answer has begun as a stream");
  queue_response(response);
}

void HttpConnection::queue_response(const HttpResponse& response) {
  const bool has_body = !forbids_body(response.status);
  ResponseHead head;
  head.status = response.status;
  head.content_type = has_body ? std::string_view(response.content_type) : std::string_view();
  head.request_id = request_id_;
  if (has_body) head.body_bytes = std::ssize(response.body);
  head.closes = closes_;
  head.headers = &response.headers;
  append_head(head, shared_.date.now(), outbox_.wire());
  if (has_body && !is_head_request_) outbox_.wire() += response.body;
  complete_answer();
}

void HttpConnection::begin_stream(uint64_t answer_idx) {
  if (!is_open(answer_idx)) return;
  AUGUR_REQUIRE(answer_ == Answer::kAwaited, "the answer has begun already");
  answer_ = Answer::kStreamed;
  carries_events_ = true;
  ResponseHead head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.request_id = request_id_;
  head.is_chunked = !parser_.head().is_http_1_0;
  head.is_event_stream = true;
  outbox_.begin_stream(head.is_chunked);
  head.closes = closes_;
  append_head(head, shared_.date.now(), outbox_.wire());
  mark_unflushed();
}

void HttpConnection::write(uint64_t answer_idx, std::string_view bytes) {
  if (!is_open(answer_idx)) return;
  AUGUR_REQUIRE(answer_ == Answer::kStreamed, "begin_stream() comes first");
  if (is_head_request_ || bytes.empty()) return;
  outbox_.write_stream(bytes);
  mark_unflushed();
  if (outbox_.unsent_bytes() <= shared_.options.max_stream_buffer_bytes) return;
  // Much may have been written within one turn, which is not the reader's fault.
  flush();
  if (state_ == State::kAnswering &&
      outbox_.unsent_bytes() > shared_.options.max_stream_buffer_bytes) {
    cut_off_slow_reader();
  }
}

void HttpConnection::end(uint64_t answer_idx) {
  if (!is_open(answer_idx)) return;
  AUGUR_REQUIRE(answer_ == Answer::kStreamed, "begin_stream() comes first");
  if (!is_head_request_) outbox_.end_stream();
  complete_answer();
}

void HttpConnection::complete_answer() {
  answer_ = Answer::kComplete;
  on_close_ = nullptr;
  mark_unflushed();
}

void HttpConnection::on_close(uint64_t answer_idx, std::function<void()> callback) {
  if (is_open(answer_idx)) on_close_ = std::move(callback);
}

void HttpConnection::abandon(uint64_t answer_idx) {
  if (!is_open(answer_idx)) return;
  log_error("request {}: nobody answers it", request_id_);
  on_close_ = nullptr;
  if (answer_ == Answer::kAwaited) return queue_response(error_response(internal_error()));
  close(/*with_reset=*/true);  // an orderly end would pass for the whole answer
}

// Writing.

void HttpConnection::mark_unflushed() {
  if (std::exchange(is_unflushed_, true)) return;
  shared_.flush_later(shared_from_this());
}

void HttpConnection::flush() {
  is_unflushed_ = false;
  if (state_ == State::kClosed || is_waiting_writable_) return;
  send_pending();
}

void HttpConnection::send_pending() {
  HttpCounters& counters = shared_.counters;
  int64_t num_writes = 0;
  const auto outcome = outbox_.send(socket_.native_handle(), counters.bytes_sent, num_writes);
  if (carries_events_) counters.stream_writes += num_writes;
  switch (outcome) {
    case HttpOutbox::Outcome::kBlocked:
      return wait_writable();
    case HttpOutbox::Outcome::kGone:
      return give_up();
    case HttpOutbox::Outcome::kAllSent:
      if (state_ == State::kAnswering && answer_ == Answer::kComplete) on_sent();
  }
}

void HttpConnection::wait_writable() {
  is_waiting_writable_ = true;
  last_taken_ = Clock::now();
  untaken_bytes_ = kernel_bytes();
  socket_.async_wait(Socket::wait_write,
                     [self = shared_from_this()](const boost::system::error_code&) {
                       self->is_waiting_writable_ = false;
                       if (self->state_ == State::kClosed) return;
                       self->send_pending();
                     });
}

// What the kernel holds that the client's has not acknowledged.
int HttpConnection::kernel_bytes() {
  int count = 0;
  return ::ioctl(socket_.native_handle(), SIOCOUTQ, &count) == 0 ? count : 0;
}

// The socket becomes writable again only once much of its buffer is free, so that a reader who is
// slow, but reads, has to be told from one who does not.
void HttpConnection::check_reader(Clock::time_point now) {
  if (!is_waiting_writable_ || now - last_taken_ < shared_.options.write_timeout) return;
  const int count = kernel_bytes();
  if (count >= untaken_bytes_) return cut_off_slow_reader();
  last_taken_ = now;
  untaken_bytes_ = count;
}

// The whole answer has been taken by the socket.
void HttpConnection::on_sent() {
  if (closes_ || shared_.is_stopping) return linger();
  state_ = State::kReading;
  parser_.reset();
  body_hold_.release();
  is_head_checked_ = false;
  deadline_ = Clock::now() + shared_.options.idle_timeout;
  take(std::exchange(unparsed_, {}));
}

// Ending.

void HttpConnection::linger() {
  if (is_peer_closed_) return close();
  boost::system::error_code ignored;  // a socket that is gone already is noticed by reading
  socket_.shutdown(Socket::shutdown_send, ignored);
  state_ = State::kLingering;
  deadline_ = Clock::now() + kLingerTime;
  unparsed_ = {};
  wait_readable();
}

void HttpConnection::on_peer_closed(bool is_reset) {
  is_peer_closed_ = true;
  if (state_ != State::kAnswering) return;  // reading finds out, after what came before
  if (is_reset || answer_ != Answer::kComplete) give_up();
}

// The client is gone before its answer was complete.
void HttpConnection::give_up() {
  if (state_ == State::kAnswering) {
    ++shared_.counters.disconnects;
    if (on_close_) shared_.call_later(std::exchange(on_close_, nullptr));
  }
  close(/*with_reset=*/true);
}

void HttpConnection::cut_off_slow_reader() {
  ++shared_.counters.slow_readers;
  log_debug("request {}: cut off, the client leaves {} bytes unread", request_id_,
            outbox_.unsent_bytes());
  give_up();
}

void HttpConnection::check_deadline(Clock::time_point now) {
  if (state_ == State::kAnswering) return check_reader(now);
  if (now < deadline_) return;
  if (state_ == State::kLingering || parser_.state() == HttpParser::State::kIdle) {
    close();
  } else if (parser_.state() == HttpParser::State::kHead) {
    refuse_request(timed_out("header", shared_.options.header_timeout));
  } else {
    refuse_request(timed_out("body", shared_.options.body_timeout));
  }
}

void HttpConnection::close_if_idle() {
  if (state_ == State::kReading && parser_.state() == HttpParser::State::kIdle) close();
}

void HttpConnection::abort() {
  if (state_ == State::kAnswering && on_close_) {
    shared_.call_later(std::exchange(on_close_, nullptr));
  }
  close(/*with_reset=*/true);
}

void HttpConnection::close(bool with_reset) {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  boost::system::error_code ignored;
  if (with_reset) {
    // Without it the kernel would go on offering what is unsent to a client that reads nothing.
    socket_.set_option(boost::asio::socket_base::linger(true, 0), ignored);
  }
  socket_.close(ignored);
  outbox_.clear();
  unparsed_ = {};
  shared_.connections.erase(id_);
}

}  // namespace augur::server
