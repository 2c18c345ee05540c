// One connection: reads a request, has it answered, and begins anew.
//
// States: reading -> answering -> reading ... -> lingering -> closed.
//   reading: bytes go to the parser. Deadlines: idle, header, body.
//   answering: nothing is read; what the client sends stays in the kernel. A peer that ends its
//     stream now, even by half (shutdown(SHUT_WR)), is taken to be gone: a client that waits for an
//     answer has no reason to, and most that do have died. Deadline: the client takes some bytes.
//   lingering: all is sent and our side is shut; what still comes is thrown away for a while, since
//     closing over unread bytes would reset the connection and take the answer with it.
// Writes are collected and go out at the end of the turn of the event loop, as one chunk and one
// send(); while the socket takes no more they pile up, to a bound.
// Not part of the server's interface: this header brings Asio.
// Threading: the server's thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/server/close_watch.h"
#include "engine/server/http_message.h"
#include "engine/server/http_outbox.h"
#include "engine/server/http_parser.h"
#include "engine/server/http_response.h"
#include "engine/server/http_server.h"

namespace augur::server {

class HttpConnection;
struct ApiKey;

/// What the connections of a server share.
class HttpShared {
 public:
  using Clock = std::chrono::steady_clock;

  HttpShared(const HttpOptions& options, const ApiKeys* keys, HttpServer::Handler handler);

  /// Has `connection` flushed at the end of this turn.
  void flush_later(std::shared_ptr<HttpConnection> connection);
  /// Calls `callback` at the end of this turn: out of whatever is going on now.
  void call_later(std::function<void()> callback);
  void end_turn();

  std::string make_request_id();

  // Constant after construction.
  const HttpOptions options;
  const ApiKeys* const keys;
  const HttpServer::Handler handler;

  boost::asio::io_context io{/*concurrency_hint=*/1};
  CloseWatch close_watch;
  HttpCounters counters;
  const BodyBudget bodies{options.max_bodies_bytes};
  HttpDate date;
  std::unordered_map<uint64_t, std::shared_ptr<HttpConnection>> connections;
  std::vector<char> read_buffer;  // of whichever connection reads
  bool is_stopping = false;       // connections are used for no further request

 private:
  void schedule_end_of_turn();

  bool is_end_scheduled_ = false;
  std::vector<std::shared_ptr<HttpConnection>> unflushed_;
  std::vector<std::shared_ptr<HttpConnection>> flushing_;  // empty between turns; keeps its memory
  std::vector<std::function<void()>> callbacks_;
  std::string id_prefix_;
  uint64_t num_ids_ = 0;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
 public:
  using Clock = HttpShared::Clock;

  HttpConnection(HttpShared& shared, boost::asio::ip::tcp::socket socket, uint64_t id);

  /// Begins to read.
  void start();
  /// Answers with `error` whatever the client asks, and closes. In place of start().
  void refuse(const ApiError& error);

  void on_peer_closed(bool is_reset);
  void check_deadline(Clock::time_point now);
  void flush();
  /// Closes the connection when no request has begun.
  void close_if_idle();
  /// Resets the connection. An answer that is not complete is given up, and its callback called.
  void abort();

  // Of the answer number `answer_idx`; nothing happens when that is not the present one.
  bool is_open(uint64_t answer_idx) const;
  void send(uint64_t answer_idx, const HttpResponse& response);
  void begin_stream(uint64_t answer_idx);
  void write(uint64_t answer_idx, std::string_view bytes);
  void end(uint64_t answer_idx);
  void on_close(uint64_t answer_idx, std::function<void()> callback);
  /// Nobody is left to answer.
  void abandon(uint64_t answer_idx);

 private:
  enum class State : uint8_t { kReading, kAnswering, kLingering, kClosed };
  enum class Answer : uint8_t { kAwaited, kStreamed, kComplete };

  // Reading.
  void wait_readable();
  void on_readable();
  void take(std::string_view bytes);
  /// Whether there is room for the body as far as it is there.
  bool holds_body();
  void note_progress(HttpParser::State before);
  void check_head(bool is_body_here);
  const ApiKey* find_key() const;
  void refuse_request(const ApiError& error);
  // Answering.
  void begin_answer();
  void dispatch();
  HttpRequest make_request();
  void answer_error(uint64_t answer_idx, const ApiError& error);
  void queue_response(const HttpResponse& response);
  void complete_answer();
  // Writing.
  void mark_unflushed();
  void send_pending();
  void on_sent();
  void wait_writable();
  int kernel_bytes();
  void check_reader(Clock::time_point now);
  // Ending.
  void linger();
  void give_up();
  void cut_off_slow_reader();
  void close(bool with_reset = false);

  HttpShared& shared_;
  boost::asio::ip::tcp::socket socket_;
  const uint64_t id_;
  State state_ = State::kReading;
  Clock::time_point deadline_;  // of reading and lingering
  bool is_peer_closed_ = false;

  HttpParser parser_;
  BodyBudget::Hold body_hold_;  // of what the parser has of a body
  bool is_waiting_readable_ = false;
  bool is_head_checked_ = false;
  std::string unparsed_;  // read together with the request that is being answered

  uint64_t answer_idx_ = 0;
  Answer answer_ = Answer::kComplete;
  const ApiKey* key_ = nullptr;
  std::string request_id_;
  bool is_head_request_ = false;
  bool closes_ = false;
  std::function<void()> on_close_;

  HttpOutbox outbox_;
  bool is_unflushed_ = false;
  bool is_waiting_writable_ = false;
  bool carries_events_ = false;
  // Of a wait for the socket to become writable.
  Clock::time_point last_taken_;  // when the client was last known to take bytes
  int untaken_bytes_ = 0;         // in the kernel, then
};

}  // namespace augur::server
