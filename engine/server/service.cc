#include "engine/server/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <condition_variable>
#include <ctime>
#include <future>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include "engine/log.h"
#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/server/call_table.h"
#include "engine/server/control_bodies.h"
#include "engine/server/engine_loop.h"
#include "engine/server/log_line.h"
#include "engine/server/page.h"
#include "engine/server/probe_call.h"
#include "engine/server/served_model.h"
#include "engine/server/server_info.h"
#include "engine/server/server_metrics.h"
#include "engine/server/snapshots.h"
#include "engine/server/stats.h"
#include "engine/server/step_trace.h"

namespace augur::server {
namespace {

using Clock = std::chrono::steady_clock;

// How long /health_generate waits for its token.
constexpr std::chrono::seconds kProbeTimeout{20};
// How often the ticker looks at what has a deadline of its own.
constexpr std::chrono::milliseconds kTick{250};
// Of answers that a client is slow to read when the server ends.
constexpr std::chrono::seconds kFlushTimeout{2};
// Clients are told to come back so much later while the model loads.
constexpr int kRetryWhileLoading_s = 5;

enum Methods : uint8_t { kGet = 1, kPost = 2, kAny = kGet | kPost };

using ParseCall = ApiCall (*)(std::string_view, const ApiContext&, const CallIdentity&);
using MakeBody = std::string (*)(std::string_view, const ApiContext&);

constexpr std::string_view kModelPrefix = "/v1/models/";

[[noreturn]] void throw_not_allowed(const HttpRequest& request) {
  throw ApiError(405, "invalid_request_error", "method_not_allowed", "",
                 fmt::format("{} does not take {}", request.path, request.method));
}

void require_admin(const HttpRequest& request) {
  if (request.is_admin) return;
  throw ApiError(403, "invalid_request_error", "admin_key_required", "",
                 fmt::format("{} needs the key of an administrator", request.path));
}

// A page of another origin can send other types of content without asking first.
void require_json(const HttpRequest& request) {
  if (request.content_type == "application/json") return;
  throw ApiError(
      400, "invalid_request_error", "unsupported_content_type", "",
      fmt::format("Content-Type is \"{}\"; accepted: application/json", request.content_type));
}

ApiError internal_error() {
  return {500, "server_error", "internal_error", "", "the server failed to handle the request"};
}

ApiError profile_error(StepTrace::Outcome outcome, const std::string& reason) {
  switch (outcome) {
    case StepTrace::Outcome::kDisabled:
      return {403, "invalid_request_error", "profiling_disabled", "", reason};
    case StepTrace::Outcome::kBusy:
    case StepTrace::Outcome::kIdle:
    case StepTrace::Outcome::kExists:
      return {409, "invalid_request_error", "conflict", "", reason};
    case StepTrace::Outcome::kBadName:
      return bad_request("file", reason);
    case StepTrace::Outcome::kDone:
    case StepTrace::Outcome::kFailed:
      break;
  }
  return {500, "server_error", "profile_failed", "", reason};
}

/// CPU time of the calling thread.
double thread_cpu_s() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

ApiError engine_failed() {
  return {503, "server_error", "engine_failed", "", "the engine has failed"};
}

/// Unix time.
int64_t now_s() {
  return static_cast<int64_t>(std::time(nullptr));
}

LoopOptions loop_options(const ServerLimitsConfig& limits, const ServedModel& model) {
  const auto milliseconds = [](double seconds) {
    return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  };
  return {.max_queued_requests = limits.max_queued_requests,
          .max_queued_tokens =
              limits.max_queued_tokens > 0 ? limits.max_queued_tokens : 4 * model.kv_capacity(),
          .num_places = model.context().limits.max_seqs,
          .waiting_timeout = milliseconds(limits.waiting_timeout_s),
          .running_timeout = milliseconds(limits.running_timeout_s)};
}

}  // namespace

std::string salt_of_key(const std::string& key_name) {
  return key_name + '\n';
}

class Service::Impl {
 public:
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
  Stats stats_now(const EngineSnapshot* snapshot) const;
  MetricsSnapshot metrics_now(const EngineSnapshot* snapshot) const;
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

Service::Impl::Impl(const EffectiveConfig& effective, ServerMetrics& metrics)
    : effective_(effective),
      config_(effective.config.server),
      metrics_(metrics),
      trace_({.folder = config_.profile_folder}),
      id_key_(std::random_device()() | uint64_t{std::random_device()()} << 32),
      workers_(static_cast<size_t>(config_.num_workers)),
      ticker_([this] { tick_until_stopped(); }) {}

std::span<const Service::Impl::Route> Service::Impl::routes() {
  static constexpr std::array kRoutes{
      Route{"/health", kGet, false, false, &Impl::health,
            "200 when ready, else 503; the state: ok, loading, draining, failed"},
      Route{"/health_generate", kGet, false, true, &Impl::health_generate,
            "the same, proved by a token that the engine generates within 20 s"},
      Route{"/metrics", kGet, false, false, &Impl::metrics, "figures for Prometheus"},
      Route{"/stats", kGet, false, false, &Impl::stats,
            "figures for the page, as JSON (shape: engine/server/stats.h)"},
      Route{"/server_info", kGet, false, true, &Impl::server_info,
            "version, model, limits, memory, what the start took, the configuration in effect"},
      Route{"/get_server_info", kGet, false, true, &Impl::server_info,
            "the same, for older clients of SGLang"},
      Route{"/model_info", kGet, false, true, &Impl::model_info,
            "model path and context, for clients of SGLang"},
      Route{"/get_model_info", kGet, false, true, &Impl::model_info, "the same, for older ones"},
      Route{"/v1/models", kGet, false, true, &Impl::models,
            "the names the model answers to; /v1/models/NAME: one of them"},
      Route{"/v1/completions", kPost, false, true, &Impl::completions,
            "completions of texts or token ids ([api.md](api.md))"},
      Route{"/v1/chat/completions", kPost, false, true, &Impl::chat,
            "completions of chats ([api.md](api.md))"},
      Route{"/generate", kPost, false, true, &Impl::generate,
            "SGLang's native form ([api.md](api.md))"},
      Route{"/v1/tokenize", kPost, false, true, &Impl::tokenize, "token ids of a text or a chat"},
      Route{"/tokenize", kPost, false, true, &Impl::tokenize, "the same"},
      Route{"/v1/detokenize", kPost, false, true, &Impl::detokenize, "text of token ids"},
      Route{"/detokenize", kPost, false, true, &Impl::detokenize, "the same"},
      Route{"/flush_cache", kAny, true, true, &Impl::flush_cache,
            "gives up what the prefix cache holds and nobody uses"},
      Route{"/start_profile", kPost, true, true, &Impl::start_profile,
            "begins to record steps and requests: {\"file\", \"num_steps\"}, both optional"},
      Route{"/stop_profile", kPost, true, true, &Impl::stop_profile,
            "ends that and writes the trace, for chrome://tracing or Perfetto"},
      Route{"/abort_request", kPost, false, true, &Impl::abort_request,
            "ends the request of an id, {\"rid\"}, or all of them, {\"abort_all\": true}, which "
            "needs an administrator's key"},
  };
  return kRoutes;
}

std::vector<RouteInfo> Service::Impl::route_infos() {
  std::vector<RouteInfo> infos;
  for (const Route& route : routes()) {
    infos.push_back({route.path,
                     route.methods == kAny    ? "GET, POST"
                     : route.methods == kPost ? "POST"
                                              : "GET",
                     route.is_admin, route.help});
  }
  return infos;
}

void Service::Impl::handle(HttpRequest&& request, std::shared_ptr<Reply> reply) {
  try {
    route({std::move(request), reply, Clock::now()});
  } catch (const ApiError& error) {
    refuse(*reply, error);
  }
}

void Service::Impl::route(Exchange&& exchange) {
  const HttpRequest& request = exchange.request;
  const bool is_get = request.method == "GET";
  if (const PageFile* file = find_page_file(request.path); file != nullptr && is_get) {
    return respond(*exchange.reply, page_response(*file));
  }
  if (is_get && request.path.starts_with(kModelPrefix)) {
    require_model();
    return respond(*exchange.reply, {.body = model_body(request.path.substr(kModelPrefix.size()),
                                                        model_->context(), created_s_)});
  }
  for (const Route& candidate : routes()) {
    if (candidate.path != request.path) continue;
    const bool is_post = request.method == "POST";
    if (!(is_get && (candidate.methods & kGet)) && !(is_post && (candidate.methods & kPost))) {
      throw_not_allowed(request);
    }
    if (candidate.is_admin) require_admin(request);
    if (candidate.needs_model) require_model();
    return (this->*candidate.run)(std::move(exchange));
  }
  throw ApiError(404, "invalid_request_error", "not_found", "",
                 fmt::format("there is nothing at {}", request.path));
}

void Service::Impl::respond(Reply& reply, HttpResponse response) {
  metrics_.count_response(response.status);
  reply.send(std::move(response));
}

ServerState Service::Impl::state() const {
  const ServerState state = state_;
  if (state != ServerState::kLoading && loop_->is_dead()) return ServerState::kFailed;
  return state;
}

void Service::Impl::require_model() const {
  if (state() != ServerState::kLoading) return;
  ApiError error(503, "server_error", "model_loading", "", "the model is being loaded");
  error.retry_after_s = kRetryWhileLoading_s;
  throw error;
}

/// Ids are not to be guessed: draws of requests without a seed depend on them.
std::string Service::Impl::make_id(std::string_view prefix) {
  std::random_device device;
  return fmt::format("{}{:08x}{:08x}{:016x}", prefix, device(), device(), id_key_ + num_ids_++);
}

void Service::Impl::health(Exchange&& exchange) {
  const ServerState now = state();
  respond(*exchange.reply, {.status = now == ServerState::kReady ? 200 : 503,
                            .body = fmt::format(R"({{"status":"{}"}})",
                                                now == ServerState::kReady ? "ok" : name_of(now))});
}

void Service::Impl::health_generate(Exchange&& exchange) {
  const std::string id = make_id("probe-");
  probes_.push_back({id, Clock::now() + kProbeTimeout});
  calls_->start(make_probe_call(id), id, /*owner=*/"", Clock::now(), std::move(exchange.reply));
}

void Service::Impl::models(Exchange&& exchange) {
  respond(*exchange.reply, {.body = models_body(model_->context(), created_s_)});
}

void Service::Impl::model_info(Exchange&& exchange) {
  respond(*exchange.reply, {.body = model_info_body(*model_)});
}

void Service::Impl::server_info(Exchange&& exchange) {
  snapshots_->ask(false, [this, reply = std::move(exchange.reply)](const EngineSnapshot& snapshot) {
    respond(*reply, {.body = server_info_body(effective_, *model_, snapshot)});
  });
}

void Service::Impl::metrics(Exchange&& exchange) {
  const auto answer = [this](Reply& reply, const EngineSnapshot* snapshot) {
    respond(reply, {.content_type = std::string(ServerMetrics::kContentType),
                    .body = metrics_.text(metrics_now(snapshot))});
  };
  if (state() == ServerState::kLoading) return answer(*exchange.reply, nullptr);
  snapshots_->ask(false, [answer, reply = std::move(exchange.reply)](
                             const EngineSnapshot& snapshot) { answer(*reply, &snapshot); });
}

MetricsSnapshot Service::Impl::metrics_now(const EngineSnapshot* snapshot) const {
  MetricsSnapshot now;
  now.http = server_->counters();
  now.cpu_s.emplace_back("http", thread_cpu_s());
  if (snapshot == nullptr) return now;
  now.engine = loop_->figures();
  now.num_kv_blocks = snapshot->num_kv_blocks;
  now.num_requests = loop_->num_requests();
  now.num_queued_requests = loop_->num_queued_requests();
  now.num_queued_tokens = loop_->num_queued_tokens();
  now.num_open_streams = calls_->num_open_streams();
  now.num_watchdog_reports = num_watchdog_reports_;
  now.cpu_s.emplace_back("engine", loop_->cpu_s());
  now.more = snapshot->expert_metrics;
  return now;
}

void Service::Impl::stats(Exchange&& exchange) {
  if (state() == ServerState::kLoading) {
    return respond(*exchange.reply, {.body = to_json(stats_now(nullptr))});
  }
  snapshots_->ask(true, [this, reply = std::move(exchange.reply)](const EngineSnapshot& snapshot) {
    respond(*reply, {.body = to_json(stats_now(&snapshot))});
  });
}

Stats Service::Impl::stats_now(const EngineSnapshot* snapshot) const {
  Stats stats;
  stats.state = state();
  stats.version = AUGUR_VERSION;
  stats.uptime_s = std::chrono::duration<double>(Clock::now() - start_).count();
  stats.resident_bytes = resident_bytes_of_process();
  if (snapshot == nullptr) {
    stats.loading = Stats::Loading{.phase = "loading", .share = loaded_share_.load()};
    return stats;
  }
  stats.model = model_->context().model_names.front();
  const EngineCounters& counters = snapshot->counters;
  stats.tokens = {.prompt = counters.prefill_tokens, .generated = metrics_.num_generated_tokens()};
  stats.requests.running = snapshot->num_running;
  stats.requests.waiting = snapshot->num_waiting;
  stats.requests.finished = counters.finished_requests;
  stats.queue = {.requests = loop_->num_queued_requests(),
                 .max_requests = loop_options_.max_queued_requests,
                 .tokens = loop_->num_queued_tokens(),
                 .max_tokens = loop_options_.max_queued_tokens};
  const ServerMetrics::Totals totals = metrics_.totals();
  stats.requests.aborted = totals.aborted;
  stats.requests.failed = totals.failed;
  stats.requests.refused = totals.refused;
  stats.ttft = metrics_.time_to_first_token();
  stats.inter_token = metrics_.inter_token_latency();
  stats.kv = {.block_tokens = model_->context().limits.block_size,
              .total_blocks = snapshot->num_kv_blocks,
              .free_blocks = snapshot->num_free_kv_blocks,
              .cached_blocks = snapshot->num_cached_kv_blocks,
              .prefix_query_tokens = counters.prefix_query_tokens,
              .prefix_hit_tokens = counters.prefix_hit_tokens,
              .preemptions = counters.preemptions};
  stats.experts = snapshot->experts;
  return stats;
}

void Service::Impl::call(Exchange&& exchange, std::string_view id_prefix, ParseCall parse) {
  require_json(exchange.request);
  auto shared = std::make_shared<Exchange>(std::move(exchange));
  const CallIdentity identity{make_id(id_prefix), now_s()};
  // A reply belongs to the server's thread: its last pointer must go there, and so is handed on
  // whole.
  boost::asio::post(workers_, [this, shared, identity, parse]() mutable {
    // Lambdas that are copied hold what is moved: through a pointer.
    auto parsed = std::make_shared<ApiCall>();
    try {
      *parsed = parse(shared->request.body, model_->context(), identity);
      own_requests(*parsed, shared->request);
    } catch (const ApiError& error) {
      return server_->post(
          [this, shared = std::move(shared), error] { refuse_call(*shared, error); });
    } catch (const std::exception& error) {
      log_error("{}: {}", shared->request.path, error.what());
      return server_->post(
          [this, shared = std::move(shared)] { refuse_call(*shared, internal_error()); });
    }
    shared->request.body = {};  // of no use any more
    shared->request.body_hold.release();
    server_->post([this, shared = std::move(shared), identity, parsed] {
      start_call(std::move(*parsed), identity.id, *shared);
    });
  });
}

void Service::Impl::convert(Exchange&& exchange, MakeBody make) {
  require_json(exchange.request);
  auto shared = std::make_shared<Exchange>(std::move(exchange));
  boost::asio::post(workers_, [this, shared, make]() mutable {
    HttpResponse response;
    try {
      response.body = make(shared->request.body, model_->context());
    } catch (const ApiError& error) {
      response = error_response(error);
    } catch (const std::exception& error) {
      log_error("{}: {}", shared->request.path, error.what());
      response = error_response(internal_error());
    }
    auto answer = std::make_shared<HttpResponse>(std::move(response));
    server_->post([this, shared = std::move(shared), answer] {
      respond(*shared->reply, std::move(*answer));
    });
  });
}

void Service::Impl::start_call(ApiCall parsed, const std::string& id, const Exchange& exchange) {
  calls_->start(std::move(parsed), id, exchange.request.key_name, exchange.arrival, exchange.reply);
}

void Service::Impl::refuse_call(const Exchange& exchange, const ApiError& error) {
  metrics_.count_refusal(error.code == "context_length_exceeded" ? Refusal::kTooLong
                         : error.code == "model_not_found"       ? Refusal::kUnknownModel
                                                                 : Refusal::kInvalid);
  refuse(*exchange.reply, error);
}

// Each key is a tenant: it has its turn, and a prefix cache of its own unless that is shared.
void Service::Impl::own_requests(ApiCall& parsed, const HttpRequest& request) const {
  if (request.key_name.empty()) return;
  for (Request& one : parsed.requests) {
    one.tenant = request.key_name;
    if (!config_.share_prefixes) one.cache_salt = salt_of_key(request.key_name) + one.cache_salt;
  }
}

void Service::Impl::flush_cache(Exchange&& exchange) {
  flushes_.push_back(std::move(exchange.reply));
  loop_->call([this](Engine& engine) {
    const int64_t num_blocks = engine.flush_prefix_cache();
    server_->post([this, num_blocks] { answer_flushes(num_blocks); });
  });
}

void Service::Impl::answer_flushes(std::optional<int64_t> num_blocks) {
  for (const std::shared_ptr<Reply>& reply : std::exchange(flushes_, {})) {
    if (!num_blocks) {
      refuse(*reply, engine_failed());
      continue;
    }
    respond(*reply, {.body = fmt::format(R"({{"status":"ok","freed_blocks":{}}})", *num_blocks)});
  }
}

void Service::Impl::abort_request(Exchange&& exchange) {
  const AbortBody body = parse_abort_body(exchange.request.body);
  const bool is_admin = exchange.request.is_admin;
  if (body.is_all) {
    require_admin(exchange.request);
    const int64_t num_requests = calls_->num_requests();
    calls_->abort_all();
    return respond(*exchange.reply, {.body = fmt::format(R"({{"aborted":{}}})", num_requests)});
  }
  const int num_requests = calls_->abort(body.rid, is_admin ? nullptr : &exchange.request.key_name);
  respond(*exchange.reply, {.body = fmt::format(R"({{"aborted":{}}})", num_requests)});
}

void Service::Impl::become_ready(ServedModel& model) {
  model_ = &model;
  loop_options_ = loop_options(config_.limits, model);
  loop_ = std::make_unique<EngineLoop>(
      model.engine(), loop_options_,
      [this](std::vector<LoopEvent>&& events) {
        trace_.on_events(events);
        auto shared = std::make_shared<std::vector<LoopEvent>>(std::move(events));
        server_->post([this, shared] { calls_->take(std::move(*shared)); });
      },
      [this](const StepReport& report) {
        metrics_.on_step(report);
        trace_.on_step(report);
      });
  snapshots_ = std::make_unique<Snapshots>(model, *loop_, *server_, model.snapshot(false));
  calls_ = std::make_unique<CallTable>(*loop_, metrics_);
  for (const PhaseTime& phase : model.phases()) metrics_.set_startup_s(phase.name, phase.seconds);
  metrics_.set_config_info(config_info(effective_, model));
  interval_log_.emplace(sample_now());
  logged_ = Clock::now();
  loop_->start();
  state_ = ServerState::kReady;
}

void Service::Impl::drain(std::chrono::milliseconds deadline) {
  const bool was_loading = state_.exchange(ServerState::kDraining) == ServerState::kLoading;
  if (was_loading) return;
  std::promise<void> idle;
  std::future<void> is_idle = idle.get_future();
  const bool is_running = loop_->drain([&idle] { idle.set_value(); });
  if (is_running && is_idle.wait_for(deadline) != std::future_status::ready) {
    log_warning("{} requests are still under way and are ended", loop_->num_requests());
    loop_->abort_all(AbortCause::kShutdown);
  }
  loop_->stop();
  // Answers that are complete are still on their way through the sockets.
  server_->stop_accepting();
  const Clock::time_point last = Clock::now() + kFlushTimeout;
  while (Clock::now() < last && num_open_connections() > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void Service::Impl::start_profile(Exchange&& exchange) {
  const ProfileBody body = parse_profile_body(exchange.request.body);
  const StepTrace::Started started = trace_.start(body.file, body.num_steps.value_or(0));
  if (started.outcome != StepTrace::Outcome::kDone) {
    throw profile_error(started.outcome, started.error);
  }
  boost::json::object answer;
  answer["status"] = "recording";
  answer["file"] = started.file;
  respond(*exchange.reply, {.body = boost::json::serialize(answer)});
}

void Service::Impl::stop_profile(Exchange&& exchange) {
  trace_.stop([this, reply = std::move(exchange.reply)](const StepTrace::Written& written) mutable {
    server_->post([this, reply = std::move(reply), written] {
      if (written.outcome != StepTrace::Outcome::kDone) {
        return refuse(*reply, profile_error(written.outcome, written.error));
      }
      boost::json::object answer;
      answer["status"] = "written";
      answer["file"] = written.file;
      answer["records"] = written.num_records;
      answer["dropped"] = written.num_dropped;
      respond(*reply, {.body = boost::json::serialize(answer)});
    });
  });
}

int64_t Service::Impl::num_open_connections() {
  std::promise<int64_t> counted;
  std::future<int64_t> count = counted.get_future();
  server_->post([&] { counted.set_value(server_->counters().open_connections); });
  return count.get();
}

void Service::Impl::stop() {
  workers_.stop();
  workers_.join();
  if (loop_) loop_->stop();
  {
    const std::lock_guard lock(tick_mutex_);
    is_stopped_ = true;
  }
  tick_stop_.notify_all();
  if (ticker_.joinable()) ticker_.join();
}

IntervalSample Service::Impl::sample_now() const {
  return {.time = Clock::now(),
          .engine = loop_->figures(),
          .num_kv_blocks = model_->context().limits.num_kv_blocks,
          .num_queued_requests = loop_->num_queued_requests(),
          .num_generated_tokens = metrics_.num_generated_tokens()};
}

void Service::Impl::tick_until_stopped() {
  std::unique_lock lock(tick_mutex_);
  while (!tick_stop_.wait_for(lock, kTick, [this] { return is_stopped_; })) {
    if (state_ != ServerState::kLoading) server_->post([this] { tick(); });
  }
}

void Service::Impl::tick() {
  snapshots_->tick();
  if (loop_->is_dead()) answer_flushes(std::nullopt);
  const Clock::time_point now = Clock::now();
  const double interval_s = effective_.config.metrics.log_interval_s;
  if (interval_s > 0 && now - logged_ >= std::chrono::duration<double>(interval_s)) {
    logged_ = now;
    if (const std::string line = interval_log_->line(sample_now()); !line.empty()) {
      log_info("{}", line);
    }
  }
  std::erase_if(probes_, [&](const Probe& probe) {
    if (probe.deadline > now) return false;
    calls_->abort(probe.id, /*owner=*/nullptr);
    return true;
  });
}

std::vector<RouteInfo> list_routes() {
  return Service::Impl::route_infos();
}

Service::Service(const EffectiveConfig& effective, ServerMetrics& metrics)
    : impl_(std::make_unique<Impl>(effective, metrics)) {}
Service::~Service() {
  impl_->stop();
}
void Service::handle(HttpRequest&& request, std::shared_ptr<Reply> reply) {
  impl_->handle(std::move(request), std::move(reply));
}
void Service::attach(HttpServer& server) {
  impl_->attach(server);
}
void Service::become_ready(ServedModel& model) {
  impl_->become_ready(model);
}
void Service::drain(std::chrono::milliseconds deadline) {
  impl_->drain(deadline);
}
void Service::stop() {
  impl_->stop();
}
void Service::tell_loading(double share) {
  impl_->tell_loading(share);
}
void Service::tell_watchdog_reports(int64_t count) {
  impl_->tell_watchdog_reports(count);
}
EngineLoop* Service::loop() {
  return impl_->loop();
}

}  // namespace augur::server
