#include "engine/server/engine_loop.h"

#include <pthread.h>
#include <time.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "engine/log.h"
#include "engine/server/admission_queue.h"
#include "engine/server/engine_worker.h"
#include "kernels/require.h"

namespace augur::server {
namespace {

using Clock = std::chrono::steady_clock;
using Time = Clock::time_point;

}  // namespace

class EngineLoop::Impl {
 public:
  Impl(Engine& engine, const LoopOptions& options, Sink sink, StepObserver on_step)
      : sink_(std::move(sink)),
        on_step_(std::move(on_step)),
        queue_(options),
        worker_(engine, options) {
    figures_ = worker_.figures();
  }

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
    return queue_.queued();
  }
  Amount unfinished() const {
    const std::lock_guard lock(mutex_);
    return queue_.unfinished();
  }
  EngineFigures figures() const {
    const std::lock_guard lock(mutex_);
    return figures_;
  }
  Time step_began() const { return Time(Clock::duration(step_began_.load())); }
  double cpu_s() const;

 private:
  // Everything below runs on the engine's thread.
  void run();
  bool wait_for_work();
  void step();
  void die(const std::string& error);
  void deliver();
  void report_idle();

  // Constant after construction.
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
  AdmissionQueue queue_;
  EngineFigures figures_;
  bool is_thread_there_ = false;  // cpu_clock_ can be read
  clockid_t cpu_clock_ = 0;
  double cpu_s_ = 0;  // of a thread that has ended

  EngineWorker worker_;  // engine's thread only, once that is there
};

void EngineLoop::Impl::start() {
  const std::lock_guard lock(mutex_);
  AUGUR_REQUIRE(!was_started_, "the loop was started before");
  was_started_ = true;
  thread_ = std::thread([this] { run(); });
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
  if (Admission refusal; !queue_.enter(asked, now, refusal)) return refusal;
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
      worker_.obey_commands();
      worker_.abort_overdue();
      if (is_last) worker_.abort_live(AbortCause::kShutdown);
      deliver();
      if (worker_.has_steps() && !is_last) step();
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
    return worker_.has_steps() || is_stopping_ || !commands_.empty() ||
           (!on_idle_.empty() && !worker_.has_requests());
  });
  worker_.give(std::exchange(commands_, {}));
  return is_stopping_;
}

void EngineLoop::Impl::step() {
  struct Ended {
    std::atomic<Clock::rep>& began;
    ~Ended() { began = 0; }
  };
  std::optional<StepReport> report;
  {
    const Ended ended{step_began_};
    step_began_ = Clock::now().time_since_epoch().count();
    report = worker_.step();
  }
  deliver();
  if (report && on_step_) on_step_(*report);
}

// Nobody is let in once is_dead_ is set; who came before is failed like the rest.
void EngineLoop::Impl::die(const std::string& error) {
  log_error("the engine has failed: {}", error);
  {
    const std::lock_guard lock(mutex_);
    is_dead_ = true;
    worker_.give(std::exchange(commands_, {}));
  }
  worker_.fail(error);
  deliver();
}

// The counts are right before anybody hears of the events, so that who reacts to an end finds room.
void EngineLoop::Impl::deliver() {
  const std::optional<EngineWorker::Change> change = worker_.take_change();
  if (!change) return;
  {
    const std::lock_guard lock(mutex_);
    figures_ = change->figures;
    queue_.leave(change->left_queue, change->started, Clock::now());
    queue_.finish(change->finished);
  }
  std::vector<LoopEvent> events = worker_.take_events();
  if (!events.empty()) sink_(std::move(events));
}

void EngineLoop::Impl::report_idle() {
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    if (worker_.has_requests() || !commands_.empty()) return;
    callbacks.swap(on_idle_);
  }
  for (const std::function<void()>& on_idle : callbacks) on_idle();
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
