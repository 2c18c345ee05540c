// The whole server over the demo model, in this process.
#pragma once

#include <fmt/format.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "configs/load_config.h"
#include "engine/log.h"
#include "engine/server/api_keys.h"
#include "engine/server/engine_loop.h"
#include "engine/server/page.h"
#include "engine/server/served_model.h"
#include "engine/server/server_metrics.h"
#include "engine/server/service.h"
#include "tests/server/raw_client.h"
#include "tests/server/running_server.h"

namespace augur::server {

class DemoServer {
 public:
  /// `settings` are KEY=VALUE; warm-up prompts run before the server is ready.
  explicit DemoServer(const std::vector<std::string>& settings = {}, bool loads = true)
      : effective_(load_config({}, overrides(settings))),
        keys_(effective_.config.server.api_keys_file.empty()
                  ? std::nullopt
                  : std::optional(ApiKeys::from_file(effective_.config.server.api_keys_file))),
        service_(effective_, metrics_),
        http_(
            [this](HttpRequest&& request, std::shared_ptr<Reply> reply) {
              service_.handle(std::move(request), std::move(reply));
            },
            HttpOptions{},
            keys_ ? &*keys_ : nullptr) {
    service_.attach(http_.server());
    if (loads) load();
  }
  ~DemoServer() {
    http_.stop();
    service_.stop();
  }

  void load() {
    set_log_level(LogLevel::kError);
    model_ = std::make_unique<ServedModel>(effective_, LoadListener{});
    model_->warm_up(effective_.config.warmup, {""});
    service_.become_ready(*model_);
  }

  uint16_t port() const { return http_.port(); }
  Service& service() { return service_; }
  RunningServer& http() { return http_; }

  RawResponse get(const std::string& path, const std::string& headers = "") const {
    RawClient client(port());
    client.send(fmt::format("GET {} HTTP/1.1\r\nHost: a\r\n{}\r\n", path, headers));
    return client.read_response();
  }
  static std::string post_text(const std::string& path,
                               const std::string& body,
                               const std::string& headers = "") {
    return fmt::format(
        "POST {} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
        "{}\r\n{}\r\n{}",
        path, body.size(), headers, body);
  }
  RawResponse post(const std::string& path,
                   const std::string& body,
                   const std::string& headers = "") const {
    RawClient client(port());
    client.send(post_text(path, body, headers));
    return client.read_response();
  }
  boost::json::value json(const RawResponse& response) const {
    return boost::json::parse(response.body);
  }
  /// Polls until nothing runs or waits; false after some seconds.
  bool becomes_idle() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (service_.loop()->num_requests() > 0) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

 private:
  static std::vector<ConfigOverride> overrides(const std::vector<std::string>& settings) {
    std::vector<ConfigOverride> result{
        {"model.path", AUGUR_SOURCE_DIR "/models/tiny-glm4-moe", "test"},
        {"execution.device", "cpu", "test"},
        {"execution.precision", "reference", "test"},
        {"execution.num_threads", "1", "test"},
        {"execution.pin_threads", "false", "test"},
        {"kv_cache.bytes", "32MiB", "test"}};
    for (const std::string& setting : settings) result.push_back(parse_set_option(setting));
    return result;
  }

  const EffectiveConfig effective_;
  const std::optional<ApiKeys> keys_;
  std::unique_ptr<ServedModel> model_;  // outlives the service, which runs its engine
  ServerMetrics metrics_{{.model_name = "tiny-glm4-moe", .exports_vllm_names = true}};
  Service service_;
  RunningServer http_;
};

}  // namespace augur::server
