// Hands an answer to its connection, for as long as there is one.
//
// Threading: as Reply says.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "engine/server/http_connection.h"
#include "engine/server/http_message.h"

namespace augur::server {

class HttpReply final : public Reply {
 public:
  HttpReply(std::weak_ptr<HttpConnection> connection, uint64_t answer_idx)
      : connection_(std::move(connection)), answer_idx_(answer_idx) {}
  ~HttpReply() override {
    if (const auto connection = connection_.lock()) connection->abandon(answer_idx_);
  }
  HttpReply(const HttpReply&) = delete;
  HttpReply& operator=(const HttpReply&) = delete;

  void send(HttpResponse response) override {
    if (const auto connection = connection_.lock()) connection->send(answer_idx_, response);
  }
  void begin_stream() override {
    if (const auto connection = connection_.lock()) connection->begin_stream(answer_idx_);
  }
  void write(std::string_view bytes) override {
    if (const auto connection = connection_.lock()) connection->write(answer_idx_, bytes);
  }
  void end() override {
    if (const auto connection = connection_.lock()) connection->end(answer_idx_);
  }
  void on_close(std::function<void()> callback) override {
    if (const auto connection = connection_.lock()) {
      connection->on_close(answer_idx_, std::move(callback));
    }
  }
  bool is_open() const override {
    const auto connection = connection_.lock();
    return connection && connection->is_open(answer_idx_);
  }

 private:
  const std::weak_ptr<HttpConnection> connection_;
  const uint64_t answer_idx_;
};

}  // namespace augur::server
