#include <fmt/core.h>

#include <boost/asio/post.hpp>
#include <random>
#include <utility>

#include "engine/server/http_connection.h"

namespace augur::server {
namespace {

constexpr size_t kReadBytes = 64 << 10;  // what one read takes at most

}  // namespace

HttpShared::HttpShared(const HttpOptions& options, const ApiKeys* keys, HttpServer::Handler handler)
    : options(options),
      keys(keys),
      handler(std::move(handler)),
      close_watch(io,
                  [this](uint64_t id, bool is_reset) {
                    const auto found = connections.find(id);
                    if (found == connections.end()) return;
                    const auto connection = found->second;  // may close, which forgets it
                    connection->on_peer_closed(is_reset);
                  }),
      read_buffer(kReadBytes) {
  std::random_device random;
  id_prefix_ = fmt::format("{:08x}{:08x}", random(), random());
}

void HttpShared::flush_later(std::shared_ptr<HttpConnection> connection) {
  unflushed_.push_back(std::move(connection));
  schedule_end_of_turn();
}

void HttpShared::call_later(std::function<void()> callback) {
  callbacks_.push_back(std::move(callback));
  schedule_end_of_turn();
}

void HttpShared::schedule_end_of_turn() {
  if (std::exchange(is_end_scheduled_, true)) return;
  boost::asio::post(io, [this] { end_turn(); });
}

void HttpShared::end_turn() {
  is_end_scheduled_ = false;
  // What is added meanwhile is another turn's.
  unflushed_.swap(flushing_);
  for (const auto& connection : flushing_) connection->flush();
  flushing_.clear();
  const auto callbacks = std::exchange(callbacks_, {});
  for (const auto& callback : callbacks) callback();
}

std::string HttpShared::make_request_id() {
  return fmt::format("{}{:08x}", id_prefix_, ++num_ids_);
}

}  // namespace augur::server
