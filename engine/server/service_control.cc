// What a server tells of itself, and what it is told to do.
#include <time.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <utility>

#include "engine/server/control_bodies.h"
#include "engine/server/http_server.h"
#include "engine/server/server_info.h"
#include "engine/server/service_impl.h"

namespace augur::server {
namespace {

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

}  // namespace

void Service::Impl::metrics(Exchange&& exchange) {
  const auto answer = [this](Reply& reply, const ExpertSnapshot* snapshot) {
    respond(reply, {.content_type = std::string(ServerMetrics::kContentType),
                    .body = metrics_.text(metrics_now(snapshot))});
  };
  if (state() == ServerState::kLoading) return answer(*exchange.reply, nullptr);
  snapshots_->ask(false, [answer, reply = std::move(exchange.reply)](
                             const ExpertSnapshot& snapshot) { answer(*reply, &snapshot); });
}

MetricsSnapshot Service::Impl::metrics_now(const ExpertSnapshot* snapshot) const {
  MetricsSnapshot now;
  now.http = server_->counters();
  now.cpu_s.emplace_back("http", thread_cpu_s());
  if (snapshot == nullptr) return now;
  now.engine = loop_->figures();
  now.num_kv_blocks = model_->context().limits.num_kv_blocks;
  now.num_requests = loop_->num_requests();
  now.num_queued_requests = loop_->num_queued_requests();
  now.num_queued_tokens = loop_->num_queued_tokens();
  now.num_open_streams = calls_->num_open_streams();
  now.num_watchdog_reports = num_watchdog_reports_;
  now.cpu_s.emplace_back("engine", loop_->cpu_s());
  now.more = snapshot->metrics;
  return now;
}

void Service::Impl::stats(Exchange&& exchange) {
  if (state() == ServerState::kLoading) {
    return respond(*exchange.reply, {.body = to_json(stats_now(nullptr))});
  }
  snapshots_->ask(true, [this, reply = std::move(exchange.reply)](const ExpertSnapshot& snapshot) {
    respond(*reply, {.body = to_json(stats_now(&snapshot))});
  });
}

Stats Service::Impl::stats_now(const ExpertSnapshot* snapshot) const {
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
  const EngineFigures figures = loop_->figures();
  const EngineCounters& counters = figures.counters;
  stats.tokens = {.prompt = counters.prefill_tokens, .generated = metrics_.num_generated_tokens()};
  stats.requests.running = figures.num_running;
  stats.requests.waiting = figures.num_waiting;
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
              .total_blocks = model_->context().limits.num_kv_blocks,
              .free_blocks = figures.num_free_kv_blocks,
              .cached_blocks = figures.num_cached_kv_blocks,
              .prefix_query_tokens = counters.prefix_query_tokens,
              .prefix_hit_tokens = counters.prefix_hit_tokens,
              .preemptions = counters.preemptions};
  stats.experts = snapshot->experts;
  return stats;
}

void Service::Impl::server_info(Exchange&& exchange) {
  respond(*exchange.reply, {.body = server_info_body(effective_, *model_, loop_->figures())});
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

}  // namespace augur::server
