#include "engine/server/engine_worker.h"

#include <exception>
#include <iterator>
#include <utility>

#include "engine/log.h"

namespace augur::server {

using Clock = std::chrono::steady_clock;

void EngineWorker::give(std::vector<Command>&& commands) {
  std::move(commands.begin(), commands.end(), std::back_inserter(commands_));
}

void EngineWorker::obey_commands() {
  while (!commands_.empty()) {
    is_changed_ = true;
    Command command = std::move(commands_.front());
    commands_.pop_front();
    std::visit([this](auto& known) { obey(known); }, command);
  }
}

void EngineWorker::obey(Submission& submission) {
  uint64_t ticket = submission.first_ticket;
  for (Request& request : submission.requests) {
    take(std::move(request), ticket++, submission.submitted);
  }
}

void EngineWorker::obey(Call& call) {
  try {
    call.work(engine_);
  } catch (const std::exception& error) {
    if (dead_reason_.empty()) throw;
    log_error("the engine, which has failed before: {}", error.what());
  }
}

// The callbacks note what happens and nothing else: the engine is in the middle of a step.
void EngineWorker::take(Request&& request, uint64_t ticket, Clock::time_point submitted) {
  const LiveRequest& live = live_.add(ticket, request, submitted);
  if (!dead_reason_.empty()) return add_failure(ticket, live, dead_reason_);
  request.on_started = [this, ticket](const RequestStart& start) {
    add_event(LoopEvent::Kind::kStarted, ticket).start = start;
  };
  request.on_update = [this, ticket](const RequestUpdate& update) {
    add_event(LoopEvent::Kind::kUpdate, ticket).update = update;
  };
  request.on_finished = [this, ticket](RequestResult&& result) {
    add_event(LoopEvent::Kind::kFinished, ticket).result = std::move(result);
  };
  try {
    engine_.submit(std::move(request));
  } catch (const std::exception& error) {
    // One that should not have been let in must not take the others with it.
    return add_failure(ticket, live, error.what());
  }
  has_steps_ = true;
  live_.set_deadline(ticket, submitted, options_.waiting_timeout);
}

LoopEvent& EngineWorker::add_event(LoopEvent::Kind kind, uint64_t ticket) {
  LoopEvent& event = events_.emplace_back();
  event.kind = kind;
  event.ticket = ticket;
  return event;
}

void EngineWorker::add_failure(uint64_t ticket, const LiveRequest& live, const std::string& error) {
  RequestResult& result = add_event(LoopEvent::Kind::kFinished, ticket).result;
  result.num_prompt_tokens = live.amount.tokens;
  result.times.finished = Clock::now();
  result.error = error;
}

void EngineWorker::abort(uint64_t ticket, AbortCause cause) {
  LiveRequest* const live = live_.find(ticket);
  if (live == nullptr || !dead_reason_.empty()) return;
  // Where it has ended in the meantime, the engine does not know it any more and its event stays.
  if (engine_.abort(live->engine_id)) live->cause = cause;
}

void EngineWorker::abort_live(AbortCause cause) {
  if (!dead_reason_.empty()) return;  // all have been failed
  for (auto& [ticket, live] : live_.all()) {
    if (engine_.abort(live.engine_id)) live.cause = cause;
  }
}

void EngineWorker::abort_overdue() {
  if (!live_.has_deadlines()) return;
  const Clock::time_point now = Clock::now();
  while (const std::optional<uint64_t> ticket = live_.take_overdue(now)) {
    const bool is_started = live_.find(*ticket)->is_started;
    abort(*ticket, is_started ? AbortCause::kRunningTimeout : AbortCause::kWaitingTimeout);
  }
}

std::optional<StepReport> EngineWorker::step() {
  const EngineCounters before = engine_.counters();
  StepReport report;
  report.begin = Clock::now();
  has_steps_ = engine_.step();
  report.end = Clock::now();
  is_changed_ = true;
  if (!has_steps_) return std::nullopt;
  report.prefill_tokens = engine_.counters().prefill_tokens - before.prefill_tokens;
  report.decode_tokens = engine_.counters().decode_tokens - before.decode_tokens;
  report.num_running = engine_.num_running();
  report.num_waiting = engine_.num_waiting();
  return report;
}

void EngineWorker::fail(const std::string& reason) {
  dead_reason_ = reason.empty() ? "the engine has failed" : reason;
  has_steps_ = false;
  settle();
  fail_live();
  obey_commands();
}

// The engine's own state may be what broke, so it is asked for what there is and not relied on.
void EngineWorker::fail_live() {
  for (auto& [ticket, live] : live_.all()) {
    const size_t num_before = events_.size();
    try {
      engine_.abort(live.engine_id);
    } catch (const std::exception& error) {
      log_error("\"{}\" could not be ended: {}", live.id, error.what());
    }
    if (events_.size() == num_before) add_failure(ticket, live, dead_reason_);
    RequestResult& result = events_.back().result;
    if (result.error.empty()) result.error = dead_reason_;
    for (Completion& completion : result.completions) {
      if (completion.finish_reason == FinishReason::kAborted) {
        completion.finish_reason = FinishReason::kFailed;
      }
    }
  }
}

// Costs what new events there are, whoever else is there.
void EngineWorker::settle() {
  for (; num_settled_ < events_.size(); ++num_settled_) {
    LoopEvent& event = events_[num_settled_];
    if (event.kind == LoopEvent::Kind::kStarted) settle_started(event);
    if (event.kind == LoopEvent::Kind::kFinished) settle_finished(event);
  }
}

void EngineWorker::settle_started(LoopEvent& event) {
  LiveRequest& live = *live_.find(event.ticket);
  event.start.times.submitted = live.submitted;
  live.is_started = true;
  change_.left_queue.add(live.amount);
  change_.started.add(live.amount);
  live_.set_deadline(event.ticket, event.start.times.started, options_.running_timeout);
}

void EngineWorker::settle_finished(LoopEvent& event) {
  const LiveRequest& live = *live_.find(event.ticket);
  event.result.id = live.id;
  event.result.times.submitted = live.submitted;
  event.cause = event.result.error.empty() ? live.cause : AbortCause::kFailed;
  if (!live.is_started) change_.left_queue.add(live.amount);
  change_.finished.add(live.amount);
  live_.erase(event.ticket);
}

std::optional<EngineWorker::Change> EngineWorker::take_change() {
  settle();
  if (!std::exchange(is_changed_, false) && events_.empty()) return std::nullopt;
  Change change = std::exchange(change_, {});
  change.figures = figures();
  return change;
}

std::vector<LoopEvent> EngineWorker::take_events() {
  std::vector<LoopEvent> events;
  events.reserve(events_.size());  // the next step has about as many
  events.swap(events_);
  num_settled_ = 0;
  return events;
}

EngineFigures EngineWorker::figures() const {
  return {.num_running = engine_.num_running(),
          .num_waiting = engine_.num_waiting(),
          .num_free_kv_blocks = engine_.num_free_kv_blocks(),
          .num_cached_kv_blocks = engine_.num_cached_kv_blocks(),
          .num_idle_kv_blocks = engine_.num_idle_kv_blocks(),
          .counters = engine_.counters()};
}

}  // namespace augur::server
