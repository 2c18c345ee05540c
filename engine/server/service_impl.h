// The parts of a Service: what its files share. For those files only.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <ctime>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/server/call_table.h"
#include "engine/server/engine_loop.h"
#include "engine/server/log_line.h"
#include "engine/server/served_model.h"
#include "engine/server/server_metrics.h"
#include "engine/server/service.h"
#include "engine/server/snapshots.h"
#include "engine/server/stats.h"
#include "engine/server/step_trace.h"

namespace augur::server {

/// Unix time.
inline int64_t now_s() {
  return static_cast<int64_t>(std::time(nullptr));
}

/// Throws ApiError where the request's key is not that of an administrator.
inline void require_admin(const HttpRequest& request) {
  if (request.is_admin) return;
  throw ApiError(403, "invalid_request_error", "admin_key_required", "",
                 fmt::format("{} needs the key of an administrator", request.path));
}

class Service::Impl {
 public:
  using Clock = std::chrono::steady_clock;

  Impl(const EffectiveConfig& effective, ServerMetrics& metrics);

  void handle(HttpRequest&& request, std::shared_ptr<Reply> reply);
  void attach(HttpServer& server) { server_ = &server; }
  void become_ready(ServedModel& model);
  void drain(std::chrono::milliseconds deadline);
  void stop();
  void tell_loading(double share) { loaded_share_ = share; }
  void tell_watchdog_reports(int64_t count) { num_watchdog_reports_ = count; }
  static std::vector<RouteInfo> route_infos();
  EngineLoop* loop() { return state_ == ServerState::kLoading ? nullptr : loop_.get(); }

 private:
  enum Methods : uint8_t { kGet = 1, kPost = 2, kAny = kGet | kPost };
  using ParseCall = ApiCall (*)(std::string_view, const ApiContext&, const CallIdentity&);
  using MakeBody = std::string (*)(std::string_view, const ApiContext&);

  struct Exchange {
    HttpRequest request;
    std::shared_ptr<Reply> reply;
    Clock::time_point arrival;
  };
  struct Route {
    std::string_view path;
    Methods methods;
    bool is_admin;
    bool needs_model;
    void (Impl::*run)(Exchange&&);
    std::string_view help;
  };
  static std::span<const Route> routes();

  void route(Exchange&& exchange);
  void respond(Reply& reply, HttpResponse response);
  void refuse(Reply& reply, const ApiError& error) { respond(reply, error_response(error)); }
  ServerState state() const;
  void require_model() const;
  std::string make_id(std::string_view prefix);

  // Routes.
  void health(Exchange&& exchange);
  void health_generate(Exchange&& exchange);
  void metrics(Exchange&& exchange);
  void stats(Exchange&& exchange);
  Stats stats_now(const ExpertSnapshot* snapshot) const;
  MetricsSnapshot metrics_now(const ExpertSnapshot* snapshot) const;
  void server_info(Exchange&& exchange);
  void model_info(Exchange&& exchange);
  void models(Exchange&& exchange);
  void completions(Exchange&& exchange) {
    call(std::move(exchange), "cmpl-", parse_completion_call);
  }
  void chat(Exchange&& exchange) { call(std::move(exchange), "chatcmpl-", parse_chat_call); }
  void generate(Exchange&& exchange) { call(std::move(exchange), "gen-", parse_generate_call); }
  void tokenize(Exchange&& exchange) { convert(std::move(exchange), server::tokenize); }
  void detokenize(Exchange&& exchange) { convert(std::move(exchange), server::detokenize); }
  void flush_cache(Exchange&& exchange);
  void answer_flushes(std::optional<int64_t> num_blocks);
  void abort_request(Exchange&& exchange);
  void start_profile(Exchange&& exchange);
  void stop_profile(Exchange&& exchange);

  void call(Exchange&& exchange, std::string_view id_prefix, ParseCall parse);
  void convert(Exchange&& exchange, MakeBody make);
  void refuse_call(const Exchange& exchange, const ApiError& error);
  void start_call(ApiCall parsed, const std::string& id, const Exchange& exchange);
  void own_requests(ApiCall& parsed, const HttpRequest& request) const;

  int64_t num_open_connections();
  void tick_until_stopped();
  void tick();
  IntervalSample sample_now() const;

  const EffectiveConfig& effective_;
  const ServerConfig& config_;
  const Clock::time_point start_ = Clock::now();
  const int64_t created_s_ = now_s();
  ServerMetrics& metrics_;
  StepTrace trace_;
  const uint64_t id_key_;
  HttpServer* server_ = nullptr;
  boost::asio::thread_pool workers_;

  std::atomic<ServerState> state_{ServerState::kLoading};
  std::atomic<double> loaded_share_{0};
  std::atomic<int64_t> num_watchdog_reports_{0};
  // Made in become_ready, before state_ says so.
  ServedModel* model_ = nullptr;
  LoopOptions loop_options_;
  std::unique_ptr<Snapshots> snapshots_;
  std::unique_ptr<EngineLoop> loop_;
  std::unique_ptr<CallTable> calls_;  // of the HTTP server's thread

  // Of the HTTP server's thread.
  uint64_t num_ids_ = 0;
  struct Probe {
    std::string id;
    Clock::time_point deadline;
  };
  std::vector<Probe> probes_;
  // Who waits for /flush_cache. Kept here, since a reply must go on this thread, and an engine that
  // fails drops what it was asked on its own.
  std::vector<std::shared_ptr<Reply>> flushes_;
  std::optional<IntervalLog> interval_log_;
  Clock::time_point logged_;

  std::mutex tick_mutex_;
  std::condition_variable tick_stop_;
  bool is_stopped_ = false;
  std::thread ticker_;
};

}  // namespace augur::server
