// What the server answers: routes, and the calls behind them.
//
// States: loading (the socket is open, calls are told to come back), ready, draining (what was let
// in is finished, nothing new is let in), and dead when the engine has failed.
// Threading: handle() runs on the HTTP server's thread; parsing and tokenizing on workers; the rest
// may be called from any thread.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "configs/load_config.h"
#include "engine/server/http_message.h"
#include "engine/server/http_server.h"

namespace augur::server {

class EngineLoop;
class ServedModel;
class ServerMetrics;

/// What sets the prefix cache of an API key apart from those of others: the beginning of
/// Request::cache_salt.
std::string salt_of_key(const std::string& key_name);

/// A path that the server answers at, for documentation.
struct RouteInfo {
  std::string_view path;
  std::string_view methods;  // "GET", "POST" or "GET, POST"
  bool is_admin = false;     // needs the key of an administrator, where there are keys
  std::string_view help;
};
std::vector<RouteInfo> list_routes();

class Service {
 public:
  /// `effective` and `metrics` outlive the service. Throws ConfigError for a profile folder that is
  /// not there.
  Service(const EffectiveConfig& effective, ServerMetrics& metrics);
  ~Service();

  void handle(HttpRequest&& request, std::shared_ptr<Reply> reply);
  /// Before HttpServer::run; `server` outlives the service's last call.
  void attach(HttpServer& server);

  /// How much of the weights has been read, 0 to 1.
  void tell_loading(double share);
  /// The model is there: calls are served from now on. `model` outlives the service.
  void become_ready(ServedModel& model);
  /// Lets nothing more in. Returns once everything that was let in has ended, or at the deadline,
  /// when what is left is aborted. Called once; at once done while loading.
  void drain(std::chrono::milliseconds deadline);
  /// Ends the engine's thread and the workers. After the HTTP server has stopped.
  void stop();

  /// How many stuck steps the watchdog has reported.
  void tell_watchdog_reports(int64_t count);
  /// Null until become_ready. For the watchdog.
  EngineLoop* loop();

 private:
  friend std::vector<RouteInfo> list_routes();
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::server
