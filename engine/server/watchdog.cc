#include "engine/server/watchdog.h"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "engine/log.h"
#include "engine/server/stack_dump.h"

namespace augur::server {
namespace {

double seconds(Watchdog::Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

/// Calls an action once for each step that becomes older than a timeout.
class StepWatch {
 public:
  StepWatch(std::chrono::milliseconds timeout,
            const std::function<Watchdog::Time()>& step_began,
            std::function<void(Watchdog::Duration)> action)
      : timeout_(timeout),
        step_began_(step_began),
        action_(std::move(action)),
        thread_([this] { run(); }) {}
  ~StepWatch() {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
      wakes_.notify_one();
    }
    thread_.join();
  }

 private:
  void run() {
    pthread_setname_np(pthread_self(), "augur-watchdog");
    // Often enough to be late by an eighth at most, and never so often that it costs anything.
    const auto interval = std::clamp<std::chrono::milliseconds>(
        timeout_ / 8, std::chrono::milliseconds(1), std::chrono::seconds(1));
    std::unique_lock lock(mutex_);
    while (!wakes_.wait_for(lock, interval, [this] { return is_ending_; })) {
      lock.unlock();
      look();
      lock.lock();
    }
  }

  void look() {
    const Watchdog::Time began = step_began_();
    if (began == Watchdog::Time() || began == reported_) return;
    const Watchdog::Duration age = std::chrono::steady_clock::now() - began;
    if (age < timeout_) return;
    reported_ = began;
    action_(age);
  }

  const std::chrono::milliseconds timeout_;
  const std::function<Watchdog::Time()>& step_began_;
  const std::function<void(Watchdog::Duration)> action_;
  Watchdog::Time reported_;  // the beginning of the step the action was last called for
  std::mutex mutex_;
  std::condition_variable wakes_;
  bool is_ending_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace

class Watchdog::Impl {
 public:
  Impl(const WatchdogOptions& options,
       std::function<Time()> step_began,
       std::function<void(Duration)> on_hard)
      : step_began_(std::move(step_began)) {
    if (options.soft_timeout.count() > 0) {
      prepare_stack_dump();
      soft_.emplace(options.soft_timeout, step_began_, [this, fd = options.stack_fd](Duration age) {
        ++num_soft_reports_;
        log_error("a step of the engine has been running for {:.1f} s; the stacks of all threads:",
                  seconds(age));
        const StackDump dump = dump_stacks(fd);
        log_error("{} of {} threads have shown their stacks", dump.num_stacks, dump.num_threads);
      });
    }
    if (options.hard_timeout.count() > 0) {
      hard_.emplace(options.hard_timeout, step_began_, std::move(on_hard));
    }
  }

  int64_t num_soft_reports() const { return num_soft_reports_; }

 private:
  const std::function<Time()> step_began_;
  std::atomic<int64_t> num_soft_reports_{0};
  std::optional<StepWatch> soft_;
  std::optional<StepWatch> hard_;
};

Watchdog::Watchdog(const WatchdogOptions& options,
                   std::function<Time()> step_began,
                   std::function<void(Duration age)> on_hard)
    : impl_(std::make_unique<Impl>(options, std::move(step_began), std::move(on_hard))) {}
Watchdog::~Watchdog() = default;

int64_t Watchdog::num_soft_reports() const {
  return impl_->num_soft_reports();
}

void Watchdog::end_process(Duration age) {
  // Not through the log: whoever hangs may hold its lock.
  const std::string message = fmt::format(
      "augur: a step of the engine has been running for {:.1f} s; the process ends with status "
      "{}\n",
      seconds(age), kExitStatus);
  pollfd target{.fd = STDERR_FILENO, .events = POLLOUT};
  if (poll(&target, 1, /*timeout=*/0) == 1 && (target.revents & POLLOUT) != 0) {
    if (write(STDERR_FILENO, message.data(), message.size()) < 0) _exit(kExitStatus);
  }
  _exit(kExitStatus);
}

}  // namespace augur::server
