#include "engine/server/service.h"

#include <future>
#include <random>
#include <utility>

#include "engine/log.h"
#include "engine/server/http_server.h"
#include "engine/server/server_info.h"
#include "engine/server/service_impl.h"

namespace augur::server {
namespace {

// How often the ticker looks at what has a deadline of its own.
constexpr std::chrono::milliseconds kTick{250};
// Of answers that a client is slow to read when the server ends.
constexpr std::chrono::seconds kFlushTimeout{2};
// Clients are told to come back so much later while the model loads.
constexpr int kRetryWhileLoading_s = 5;

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

Service::Impl::Impl(const EffectiveConfig& effective, ServerMetrics& metrics)
    : effective_(effective),
      config_(effective.config.server),
      metrics_(metrics),
      trace_({.folder = config_.profile_folder}),
      id_key_(std::random_device()() | uint64_t{std::random_device()()} << 32),
      workers_(static_cast<size_t>(config_.num_workers)),
      ticker_([this] { tick_until_stopped(); }) {}

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
  throw unavailable("model_loading", "the model is being loaded", kRetryWhileLoading_s);
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
