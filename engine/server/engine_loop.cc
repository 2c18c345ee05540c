#include "engine/server/engine_loop.h"

#include <fmt/format.h>
#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_set>
#include <utility>
#include <variant>

#include "engine/log.h"
#include "engine/server/queue_rate.h"
#include "kernels/require.h"

namespace augur::server {
namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

int64_t num_completions(const Request& request) {
  return std::max(1, request.sampling.n);
}

struct Submission {
  uint64_t first_ticket = 0;
  Time submitted;
  std::vector<Request> requests;
};
struct Abort {
  uint64_t ticket = 0;
  AbortCause cause = AbortCause::kNone;
};
struct AbortAll {
  AbortCause cause = AbortCause::kNone;
};
struct Call {
  std::function<void(Engine&)> work;
};
using Command = std::variant<Submission, Abort, AbortAll, Call>;

/// What one call, or what is there, amounts to.
struct Amount {
  int64_t requests = 0;
  int64_t tokens = 0;  // of prompts
  int64_t completions = 0;

  void add(const Amount& other) {
    requests += other.requests;
    tokens += other.tokens;
    completions += other.completions;
  }
  void subtract(const Amount& other) {
    requests -= other.requests;
    tokens -= other.tokens;
    completions -= other.completions;
  }
};

Amount amount_of(const Request& request) {
  return {1, static_cast<int64_t>(request.prompt_ids.size()), num_completions(request)};
}

/// A request that was taken from the commands and has not ended.
struct Live {
  std::string engine_id;  // what the engine calls it
  std::string id;         // what its submitter calls it
  Time submitted;
  Time deadline;  // the epoch: none
  Amount amount;
  bool is_started = false;
  AbortCause cause = AbortCause::kNone;
};

}  // namespace

class EngineLoop::Impl {
 public:
  Impl(Engine& engine, const LoopOptions& options, Sink sink, StepObserver on_step)
      : engine_(engine),
        options_(options),
        sink_(std::move(sink)),
        on_step_(std::move(on_step)),
        figures_(read_figures()) {}

  void start();
  Admission submit(std::vector<Request> requests);
  void push(Command command);
  bool call(std::function<void(Engine&)> work);
  bool drain(std::function<void()> on_idle);
  void stop();

  bool is_dead() const {
    const std::lock_guard lock(mutex_);
    return is_dead_;
  }
  bool is_draining() const {
    const std::lock_guard lock(mutex_);
    return is_draining_;
  }
  Amount queued() const {
    const std::lock_guard lock(mutex_);
    return queued_;
  }
  Amount unfinished() const {
    const std::lock_guard lock(mutex_);
    return unfinished_;
  }
  EngineFigures figures() const {
    const std::lock_guard lock(mutex_);
    return figures_;
  }
  Time step_began() const { return Time(Clock::duration(step_began_.load())); }
  double cpu_s() const;

 private:
  // Of submit(), under the mutex. Returns an empty reason when there is room.
  std::string why_full(const Amount& asked) const;

  // Everything below runs on the engine's thread.
  void run();
  bool wait_for_work();
  void obey_commands();
  void obey(Submission& submission);
  void obey(Abort& abort) { this->abort(abort.ticket, abort.cause); }
  void obey(AbortAll& abort) { abort_live(abort.cause); }
  void obey(Call& call);
  void take(Request&& request, uint64_t ticket, Time submitted);
  void add_failure(uint64_t ticket, std::string id, std::string error);
  void abort(uint64_t ticket, AbortCause cause);
  void abort_live(AbortCause cause);
  void abort_overdue();
  void step();
  void die(const std::string& error);
  void fail_live();
  void set_deadline(uint64_t ticket, Live& live, Time from, std::chrono::milliseconds timeout);
  void settle();
  void settle_started(LoopEvent& event);
  void settle_finished(LoopEvent& event);
  void deliver();
  void report_idle();
  EngineFigures read_figures() const;

  // Constant after construction.
  Engine& engine_;
  const LoopOptions options_;
  const Sink sink_;
  const StepObserver on_step_;

  std::thread thread_;
  std::once_flag stopped_;
  std::atomic<Clock::rep> step_began_{0};

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wakes_;
  std::vector<Command> commands_;
  std::vector<std::function<void()>> on_idle_;
  bool was_started_ = false;
  bool is_draining_ = false;
  bool is_stopping_ = false;
  bool is_dead_ = false;
  uint64_t next_ticket_ = 1;
  Amount queued_;      // submitted, not started
  Amount unfinished_;  // submitted, not finished
  QueueRate queue_rate_;
  EngineFigures figures_;
  bool is_thread_there_ = false;  // cpu_clock_ can be read
  clockid_t cpu_clock_ = 0;
  double cpu_s_ = 0;  // of a thread that has ended

  // Engine's thread only.
  std::deque<Command> taken_;                   // in the order they came
  std::map<uint64_t, Live> live_;               // by ticket
  std::unordered_set<std::string> engine_ids_;  // of live_
  std::set<std::pair<Time, uint64_t>> deadlines_;
  std::vector<LoopEvent> events_;  // not handed over yet
  size_t num_settled_ = 0;         // of events_
  Amount left_queue_;              // by settled events, not yet taken off the shared counts
  Amount started_;                 // of those, by starting
  Amount finished_;
  bool has_steps_ = false;   // the engine has something to do
  bool is_changed_ = false;  // figures are to be read anew
  std::string dead_reason_;  // not empty: dead
};

void EngineLoop::Impl::start() {
  const std::lock_guard lock(mutex_);
  AUGUR_REQUIRE(!was_started_, "the loop was started before");
  was_started_ = true;
  thread_ = std::thread([this] { run(); });
}

std::string EngineLoop::Impl::why_full(const Amount& asked) const {
  if (unfinished_.completions + asked.completions <= options_.num_places) return "";
  const auto reason = [](const char* unit, int64_t queued, int64_t more, int64_t max) {
    return fmt::format("the queue is full: {0} {1} wait, and {2} more are not accepted beyond {3}",
                       queued, unit, more, max);
  };
  if (queued_.requests + asked.requests > options_.max_queued_requests) {
    return reason("requests", queued_.requests, asked.requests, options_.max_queued_requests);
  }
  if (queued_.tokens + asked.tokens > options_.max_queued_tokens) {
    return reason("prompt tokens", queued_.tokens, asked.tokens, options_.max_queued_tokens);
  }
  return "";
}

Admission EngineLoop::Impl::submit(std::vector<Request> requests) {
  AUGUR_REQUIRE(!requests.empty(), "a submission of no request");
  Amount asked;
  for (const Request& request : requests) asked.add(amount_of(request));
  const Time now = Clock::now();

  const std::lock_guard lock(mutex_);
  if (is_dead_) {
    return {.outcome = Admission::Outcome::kDead, .reason = "the engine has failed"};
  }
  if (is_draining_) {
    return {.outcome = Admission::Outcome::kDraining, .reason = "the server is shutting down"};
  }
  if (std::string reason = why_full(asked); !reason.empty()) {
    const int64_t requests_over = queued_.requests + asked.requests - options_.max_queued_requests;
    const int64_t tokens_over = queued_.tokens + asked.tokens - options_.max_queued_tokens;
    return {.outcome = Admission::Outcome::kQueueFull,
            .retry_after_s = queue_rate_.retry_after_s(requests_over, tokens_over, now),
            .reason = std::move(reason)};
  }
  if (queued_.requests == 0) queue_rate_.on_filled(now);
  queued_.add(asked);
  unfinished_.add(asked);
  const uint64_t first_ticket = next_ticket_;
  next_ticket_ += requests.size();
  commands_.emplace_back(Submission{first_ticket, now, std::move(requests)});
  wakes_.notify_one();
  return {.first_ticket = first_ticket};
}

void EngineLoop::Impl::push(Command command) {
  const std::lock_guard lock(mutex_);
  if (is_stopping_) return;  // everything is being ended anyway
  commands_.push_back(std::move(command));
  wakes_.notify_one();
}

bool EngineLoop::Impl::call(std::function<void(Engine&)> work) {
  const std::lock_guard lock(mutex_);
  if (is_stopping_ || is_dead_) return false;
  commands_.emplace_back(Call{std::move(work)});
  wakes_.notify_one();
  return true;
}

bool EngineLoop::Impl::drain(std::function<void()> on_idle) {
  const std::lock_guard lock(mutex_);
  is_draining_ = true;
  if (is_stopping_) return false;
  if (on_idle) on_idle_.push_back(std::move(on_idle));
  wakes_.notify_one();
  return true;
}

void EngineLoop::Impl::stop() {
  std::call_once(stopped_, [this] {
    {
      const std::lock_guard lock(mutex_);
      AUGUR_REQUIRE(std::this_thread::get_id() != thread_.get_id(),
                    "stop() on the engine's thread, which would wait for itself");
      is_draining_ = true;
      is_stopping_ = true;
      // What was submitted before a start that never came is ended like everything else.
      if (!std::exchange(was_started_, true)) thread_ = std::thread([this] { run(); });
      wakes_.notify_one();
    }
    thread_.join();
  });
}

double EngineLoop::Impl::cpu_s() const {
  const std::lock_guard lock(mutex_);
  timespec used{};
  if (!is_thread_there_ || clock_gettime(cpu_clock_, &used) != 0) return cpu_s_;
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) * 1e-9;
}

void EngineLoop::Impl::run() {
  pthread_setname_np(pthread_self(), "augur-engine");
  {
    const std::lock_guard lock(mutex_);
    is_thread_there_ = pthread_getcpuclockid(pthread_self(), &cpu_clock_) == 0;
  }
  for (bool is_last = false; !is_last;) {
    is_last = wait_for_work();
    try {
      obey_commands();
      abort_overdue();
      if (is_last) abort_live(AbortCause::kShutdown);
      deliver();
      if (has_steps_ && !is_last) step();
    } catch (const std::exception& error) {
      die(error.what());
    } catch (...) {
      die("something that is no exception was thrown");
    }
    report_idle();
  }
  const double used_s = cpu_s();
  const std::lock_guard lock(mutex_);
  is_thread_there_ = false;
  cpu_s_ = used_s;
}

// Sleeps until there is something to do, and takes the commands. Returns whether they are the last
// ones: nobody is let in once stop() was called.
bool EngineLoop::Impl::wait_for_work() {
  std::unique_lock lock(mutex_);
  // No deadline needs a timer: who has one is in the engine, which has steps to do then.
  wakes_.wait(lock, [this] {
    return has_steps_ || is_stopping_ || !commands_.empty() || (!on_idle_.empty() && live_.empty());
  });
  std::move(commands_.begin(), commands_.end(), std::back_inserter(taken_));
  commands_.clear();
  return is_stopping_;
}

void EngineLoop::Impl::obey_commands() {
  while (!taken_.empty()) {
    is_changed_ = true;
    Command command = std::move(taken_.front());
    taken_.pop_front();
    std::visit([this](auto& known) { obey(known); }, command);
  }
}

void EngineLoop::Impl::obey(Submission& submission) {
  uint64_t ticket = submission.first_ticket;
  for (Request& request : submission.requests) {
    take(std::move(request), ticket++, submission.submitted);
  }
}

void EngineLoop::Impl::obey(Call& call) {
  try {
    call.work(engine_);
  } catch (const std::exception& error) {
    if (dead_reason_.empty()) throw;
    log_error("the engine, which has failed before: {}", error.what());
  }
}

void EngineLoop::Impl::take(Request&& request, uint64_t ticket, Time submitted) {
  Live& live = live_[ticket];
  live.id = request.id;
  live.submitted = submitted;
  live.amount = amount_of(request);
  while (!engine_ids_.insert(request.id).second) request.id += fmt::format("#{}", ticket);
  live.engine_id = request.id;
  if (!dead_reason_.empty()) return add_failure(ticket, live.id, dead_reason_);

  request.on_started = [this, ticket](const RequestStart& start) {
    LoopEvent& event = events_.emplace_back();
    event.kind = LoopEvent::Kind::kStarted;
    event.ticket = ticket;
    event.start = start;
  };
  request.on_update = [this, ticket](const RequestUpdate& update) {
    LoopEvent& event = events_.emplace_back();
    event.kind = LoopEvent::Kind::kUpdate;
    event.ticket = ticket;
    event.update = update;
  };
  request.on_finished = [this, ticket](RequestResult&& result) {
    LoopEvent& event = events_.emplace_back();
    event.kind = LoopEvent::Kind::kFinished;
    event.ticket = ticket;
    event.result = std::move(result);
  };
  try {
    engine_.submit(std::move(request));
  } catch (const std::logic_error& error) {
    // One that should not have been let in must not take the others with it.
    return add_failure(ticket, live.id, error.what());
  }
  has_steps_ = true;
  set_deadline(ticket, live, submitted, options_.waiting_timeout);
}

void EngineLoop::Impl::add_failure(uint64_t ticket, std::string id, std::string error) {
  LoopEvent& event = events_.emplace_back();
  event.kind = LoopEvent::Kind::kFinished;
  event.ticket = ticket;
  event.result.id = std::move(id);
  event.result.num_prompt_tokens = live_.at(ticket).amount.tokens;
  event.result.times.finished = Clock::now();
  event.result.error = std::move(error);
}

void EngineLoop::Impl::abort(uint64_t ticket, AbortCause cause) {
  const auto found = live_.find(ticket);
  if (found == live_.end() || !dead_reason_.empty()) return;
  // Where it has ended in the meantime, the engine does not know it any more and its event stays.
  if (engine_.abort(found->second.engine_id)) found->second.cause = cause;
}

void EngineLoop::Impl::abort_live(AbortCause cause) {
  if (!dead_reason_.empty()) return;  // all have been failed
  for (auto& [ticket, live] : live_) {
    if (engine_.abort(live.engine_id)) live.cause = cause;
  }
}

void EngineLoop::Impl::abort_overdue() {
  if (deadlines_.empty()) return;
  const Time now = Clock::now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const uint64_t ticket = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    Live& live = live_.at(ticket);
    live.deadline = Time();
    abort(ticket, live.is_started ? AbortCause::kRunningTimeout : AbortCause::kWaitingTimeout);
  }
}

void EngineLoop::Impl::step() {
  const EngineCounters before = engine_.counters();
  StepReport report;
  report.begin = Clock::now();
  step_began_ = report.begin.time_since_epoch().count();
  struct Ended {
    std::atomic<Clock::rep>& began;
    ~Ended() { began = 0; }
  };
  {
    const Ended ended{step_began_};
    has_steps_ = engine_.step();
  }
  is_changed_ = true;
  report.end = Clock::now();
  deliver();
  if (!has_steps_ || !on_step_) return;
  report.prefill_tokens = engine_.counters().prefill_tokens - before.prefill_tokens;
  report.decode_tokens = engine_.counters().decode_tokens - before.decode_tokens;
  report.num_running = engine_.num_running();
  report.num_waiting = engine_.num_waiting();
  on_step_(report);
}

// Nothing is let in once is_dead_ is set; what came before it is failed like the rest.
void EngineLoop::Impl::die(const std::string& error) {
  log_error("the engine has failed: {}", error);
  dead_reason_ = error.empty() ? "the engine has failed" : error;
  has_steps_ = false;
  {
    const std::lock_guard lock(mutex_);
    is_dead_ = true;
    std::move(commands_.begin(), commands_.end(), std::back_inserter(taken_));
    commands_.clear();
  }
  settle();
  fail_live();
  obey_commands();
  deliver();
}

// The engine's own state may be what broke, so it is asked for what there is and not relied on.
void EngineLoop::Impl::fail_live() {
  for (auto& [ticket, live] : live_) {
    live.cause = AbortCause::kFailed;
    const size_t num_before = events_.size();
    try {
      engine_.abort(live.engine_id);
    } catch (const std::exception& error) {
      log_error("\"{}\" could not be ended: {}", live.id, error.what());
    }
    if (events_.size() == num_before) add_failure(ticket, live.id, dead_reason_);
    RequestResult& result = events_.back().result;
    if (result.error.empty()) result.error = dead_reason_;
    for (Completion& completion : result.completions) {
      if (completion.finish_reason == FinishReason::kAborted) {
        completion.finish_reason = FinishReason::kFailed;
      }
    }
  }
}

void EngineLoop::Impl::set_deadline(uint64_t ticket,
                                    Live& live,
                                    Time from,
                                    std::chrono::milliseconds timeout) {
  if (live.deadline != Time()) deadlines_.erase({live.deadline, ticket});
  live.deadline = Time();
  if (timeout.count() <= 0) return;
  live.deadline = from + timeout;
  deadlines_.emplace(live.deadline, ticket);
}

// Takes note of what new events say. Costs what there are of them, whoever else is there.
void EngineLoop::Impl::settle() {
  for (; num_settled_ < events_.size(); ++num_settled_) {
    LoopEvent& event = events_[num_settled_];
    if (event.kind == LoopEvent::Kind::kStarted) settle_started(event);
    if (event.kind == LoopEvent::Kind::kFinished) settle_finished(event);
  }
}

void EngineLoop::Impl::settle_started(LoopEvent& event) {
  Live& live = live_.at(event.ticket);
  event.start.times.submitted = live.submitted;
  live.is_started = true;
  left_queue_.add(live.amount);
  started_.add(live.amount);
  set_deadline(event.ticket, live, event.start.times.started, options_.running_timeout);
}

void EngineLoop::Impl::settle_finished(LoopEvent& event) {
  const auto found = live_.find(event.ticket);
  Live& live = found->second;
  event.result.id = live.id;
  event.result.times.submitted = live.submitted;
  event.cause = event.result.error.empty() ? live.cause : AbortCause::kFailed;
  if (!live.is_started) left_queue_.add(live.amount);
  finished_.add(live.amount);
  if (live.deadline != Time()) deadlines_.erase({live.deadline, event.ticket});
  engine_ids_.erase(live.engine_id);
  live_.erase(found);
}

// The counts are right before anybody hears of the events, so that who reacts to an end finds room.
void EngineLoop::Impl::deliver() {
  settle();
  if (std::exchange(is_changed_, false) || !events_.empty()) {
    const EngineFigures figures = read_figures();
    const std::lock_guard lock(mutex_);
    figures_ = figures;
    queued_.subtract(std::exchange(left_queue_, {}));
    unfinished_.subtract(std::exchange(finished_, {}));
    const Amount started = std::exchange(started_, {});
    if (started.requests > 0) {
      queue_rate_.on_started(started.requests, started.tokens, Clock::now());
    }
  }
  if (events_.empty()) return;
  std::vector<LoopEvent> events;
  events.reserve(events_.size());  // the next step has about as many
  events.swap(events_);
  num_settled_ = 0;
  sink_(std::move(events));
}

void EngineLoop::Impl::report_idle() {
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    if (!live_.empty() || !commands_.empty()) return;
    callbacks.swap(on_idle_);
  }
  for (const std::function<void()>& on_idle : callbacks) on_idle();
}

EngineFigures EngineLoop::Impl::read_figures() const {
  return {.num_running = engine_.num_running(),
          .num_waiting = engine_.num_waiting(),
          .num_free_kv_blocks = engine_.num_free_kv_blocks(),
          .counters = engine_.counters()};
}

EngineLoop::EngineLoop(Engine& engine, const LoopOptions& options, Sink sink, StepObserver on_step)
    : impl_(std::make_unique<Impl>(engine, options, std::move(sink), std::move(on_step))) {}
EngineLoop::~EngineLoop() {
  impl_->stop();
}

void EngineLoop::start() {
  impl_->start();
}
Admission EngineLoop::submit(std::vector<Request> requests) {
  return impl_->submit(std::move(requests));
}
void EngineLoop::abort(uint64_t ticket, AbortCause cause) {
  impl_->push(Abort{ticket, cause});
}
void EngineLoop::abort_all(AbortCause cause) {
  impl_->push(AbortAll{cause});
}
bool EngineLoop::call(std::function<void(Engine& engine)> work) {
  return impl_->call(std::move(work));
}
bool EngineLoop::drain(std::function<void()> on_idle) {
  return impl_->drain(std::move(on_idle));
}
void EngineLoop::stop() {
  impl_->stop();
}
bool EngineLoop::is_dead() const {
  return impl_->is_dead();
}
bool EngineLoop::is_draining() const {
  return impl_->is_draining();
}
int64_t EngineLoop::num_queued_requests() const {
  return impl_->queued().requests;
}
int64_t EngineLoop::num_queued_tokens() const {
  return impl_->queued().tokens;
}
int64_t EngineLoop::num_requests() const {
  return impl_->unfinished().requests;
}
std::chrono::steady_clock::time_point EngineLoop::step_began() const {
  return impl_->step_began();
}
EngineFigures EngineLoop::figures() const {
  return impl_->figures();
}
double EngineLoop::cpu_s() const {
  return impl_->cpu_s();
}

}  // namespace augur::server
