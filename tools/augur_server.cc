// augur-server: serves a model over HTTP. See docs/server.md.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <future>
#include <iostream>
#include <optional>
#include <sstream>
#include <thread>

#include "configs/config_error.h"
#include "configs/config_writer.h"
#include "engine/log.h"
#include "engine/model/model_loader.h"
#include "engine/server/api_keys.h"
#include "engine/server/engine_loop.h"
#include "engine/server/http_server.h"
#include "engine/server/page.h"
#include "engine/server/served_model.h"
#include "engine/server/server_metrics.h"
#include "engine/server/service.h"
#include "engine/server/watchdog.h"

namespace augur::server {
namespace {

enum ExitCode { kOk = 0, kUsage = 1, kEngineFailed = 2 };

constexpr std::string_view kExitCodes =
    "Exit status: 0 ended by a signal, with nothing left undone; 1 options, configuration or "
    "model\n"
    "refused; 2 the engine failed; 70 a step was stuck; 130, 143 ended by a signal while loading.";

struct Options {
  std::optional<std::filesystem::path> config_file;
  std::vector<ConfigOverride> overrides;
  bool print_config = false;
  std::optional<int> exit_status;  // set when the program is to end at once
};

Options parse_options(int argc, char** argv) {
  Options options;
  std::string model;
  std::string host;
  std::string port;
  std::string config_file;
  std::vector<std::string> settings;
  CLI::App app("Serves a model over HTTP: OpenAI's API, and SGLang's /generate.", "augur-server");
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  app.set_version_flag("--version", "augur-server " AUGUR_VERSION);
  app.add_option("--config", config_file, "YAML file; keys are listed below")->option_text("FILE");
  CLI::Option* const model_option =
      app.add_option("--model", model,
                     "folder of the model, in Hugging Face layout (the demo model)")
          ->option_text("DIR");
  CLI::Option* const host_option =
      app.add_option("--host", host, "short for --set server.host=")->option_text("ADDRESS");
  CLI::Option* const port_option =
      app.add_option("--port", port, "short for --set server.port=")->option_text("PORT");
  app.add_option("--set", settings, "one key of the configuration; may be given several times")
      ->option_text("KEY=VALUE")
      ->expected(1)
      ->take_all();
  app.add_flag("--print-config", options.print_config,
               "print the configuration in effect and stop");
  app.footer("Keys of the configuration:\n" + config_help() + "\n" + std::string(kExitCodes));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    options.exit_status = app.exit(error) == 0 ? kOk : kUsage;
    return options;
  }
  if (!config_file.empty()) options.config_file = config_file;
  for (const std::string& setting : settings)
    options.overrides.push_back(parse_set_option(setting));
  const auto add = [&](const CLI::Option* option, const std::string& key,
                       const std::string& value) {
    if (option->count() > 0) {
      options.overrides.push_back({key, value, option->get_name() + " " + value});
    }
  };
  add(model_option, "model.path", model);
  add(host_option, "server.host", host);
  add(port_option, "server.port", port);
  return options;
}

void log_lines(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) log_info("{}", line);
}

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

HttpOptions http_options(const ServerConfig& config) {
  const ServerLimitsConfig& limits = config.limits;
  HttpOptions options{.host = config.host,
                      .port = static_cast<uint16_t>(config.port),
                      .max_connections = limits.max_connections,
                      .max_header_bytes = limits.max_header_bytes,
                      .max_body_bytes = limits.max_body_bytes,
                      .max_bodies_bytes = limits.max_bodies_bytes,
                      .max_stream_buffer_bytes = limits.max_stream_buffer_bytes,
                      .header_timeout = milliseconds(limits.header_timeout_s),
                      .body_timeout = milliseconds(limits.body_timeout_s),
                      .idle_timeout = milliseconds(limits.idle_timeout_s),
                      .write_timeout = milliseconds(limits.write_timeout_s),
                      .open_paths = config.open_paths};
  for (const PageFile& file : page_files()) options.open_paths.emplace_back(file.path);
  return options;
}

/// As many descriptors as connections may need, as far as the system lets us.
void raise_descriptor_limit(int64_t num_connections) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlim_t wanted = static_cast<rlim_t>(num_connections) + 256;
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
    log_warning(
        "this process may open {} files, fewer than server.limits.max_connections needs ({})",
        limit.rlim_cur, wanted);
  }
}

/// SIGTERM and SIGINT, taken by whoever waits for them and by nobody else.
class EndSignals {
 public:
  /// Blocks them in this thread and those it starts.
  EndSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }

  /// The signal that came, or 0 after `patience`.
  int wait(std::chrono::milliseconds patience) const {
    const timespec time{.tv_sec = patience.count() / 1000,
                        .tv_nsec = patience.count() % 1000 * 1'000'000};
    return std::max(sigtimedwait(&set_, nullptr, &time), 0);
  }

 private:
  sigset_t set_;
};

/// The HTTP server's thread, which ends with this.
class ServerThread {
 public:
  explicit ServerThread(HttpServer& server)
      : server_(server), thread_([&server] { server.run(); }) {}
  ~ServerThread() { stop(); }
  void stop() {
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.join();
  }

 private:
  HttpServer& server_;
  std::thread thread_;
};

std::unique_ptr<ServedModel> load(const EffectiveConfig& effective,
                                  const std::vector<std::string>& salts,
                                  Service& service) {
  LoadListener listener;
  listener.on_message = log_lines;
  listener.on_warning = [](const std::string& line) { log_warning("{}", line); };
  listener.on_progress = [&](int64_t done, int64_t total) {
    if (total > 0) service.tell_loading(static_cast<double>(done) / static_cast<double>(total));
  };
  auto model = std::make_unique<ServedModel>(effective, listener);
  model->warm_up(effective.config.warmup, salts);
  std::string phases;
  double seconds = 0;
  for (const PhaseTime& phase : model->phases()) {
    phases += fmt::format("{}{} {:.2f} s", phases.empty() ? "" : ", ", phase.name, phase.seconds);
    seconds += phase.seconds;
  }
  log_info("loaded in {:.2f} s: {}", seconds, phases);
  if (!model->lossy_modes().empty()) {
    log_warning("answers are not exact: {} is on", fmt::join(model->lossy_modes(), ", "));
  }
  return model;
}

/// The salts that requests have: one for each key, or none.
std::vector<std::string> salts_of(const ServerConfig& config, const ApiKeys* keys) {
  std::vector<std::string> salts;
  if (keys != nullptr && !config.share_prefixes) {
    for (const std::string& name : keys->names()) salts.push_back(salt_of_key(name));
  }
  if (salts.empty()) salts.emplace_back();
  return salts;
}

std::string url_of(const HttpServer& server) {
  const bool is_v6 = server.host().find(':') != std::string::npos;
  return fmt::format("http://{}{}{}:{}", is_v6 ? "[" : "", server.host(), is_v6 ? "]" : "",
                     server.port());
}

int serve(const EffectiveConfig& effective, const EndSignals& signals) {
  constexpr std::chrono::milliseconds kPoll{200};
  const ServerConfig& config = effective.config.server;
  std::optional<ApiKeys> keys;
  if (!config.api_keys_file.empty()) keys = ApiKeys::from_file(config.api_keys_file);
  raise_descriptor_limit(config.limits.max_connections);

  ServerMetrics metrics({.model_name = default_model_name(effective.config),
                         .exports_vllm_names = !effective.config.metrics.compat.empty()});
  std::unique_ptr<ServedModel> model;  // outlives the service, which runs its engine
  Service service(effective, metrics);
  HttpServer server(http_options(config), keys ? &*keys : nullptr,
                    [&](HttpRequest&& request, std::shared_ptr<Reply> reply) {
                      service.handle(std::move(request), std::move(reply));
                    });
  service.attach(server);
  ServerThread thread(server);
  const std::string url = url_of(server);
  log_info("listening on {}", url);

  auto loading = std::async(std::launch::async, [&] {
    return load(effective, salts_of(config, keys ? &*keys : nullptr), service);
  });
  while (loading.wait_for(kPoll) != std::future_status::ready) {
    // Nothing is under way that could be lost.
    if (const int signal = signals.wait(std::chrono::milliseconds(0)); signal != 0) {
      log_info("ended by a signal while loading");
      std::_Exit(128 + signal);
    }
  }
  model = loading.get();
  service.become_ready(*model);
  log_info("ready: {} at {}", model->context().model_names.front(), url);

  EngineLoop& loop = *service.loop();
  const Watchdog watchdog({.soft_timeout = milliseconds(config.soft_watchdog_s),
                           .hard_timeout = milliseconds(config.hard_watchdog_s)},
                          [&loop] { return loop.step_began(); });
  int signal = 0;
  while (signal == 0 && !loop.is_dead()) {
    signal = signals.wait(kPoll);
    service.tell_watchdog_reports(watchdog.num_soft_reports());
  }
  const bool has_failed = signal == 0;
  if (has_failed) {
    log_error("the engine has failed, the server ends");
  } else {
    log_info("draining: {} requests, at most {} s", loop.num_requests(), config.shutdown_timeout_s);
  }
  service.drain(milliseconds(config.shutdown_timeout_s));
  thread.stop();
  service.stop();
  log_info("ended");
  return has_failed ? kEngineFailed : kOk;
}

int run(int argc, char** argv) {
  const Options options = parse_options(argc, argv);
  if (options.exit_status) return *options.exit_status;
  EffectiveConfig effective = load_config(options.config_file, options.overrides);
  if (options.print_config) {
    std::cout << write_config(effective);
    return std::cout.flush() ? kOk : kUsage;
  }
  set_log_level(effective.config.logging.level);
  if (effective.config.model.path.empty()) {
    effective.config.model.path = demo_model_folder().string();
  }
  const EndSignals signals;
  log_lines(write_config(effective));
  return serve(effective, signals);
}

}  // namespace
}  // namespace augur::server

int main(int argc, char** argv) {
  try {
    return augur::server::run(argc, argv);
  } catch (const std::exception& error) {
    augur::log_error("{}", error.what());
    return augur::server::kUsage;
  }
}
