// Sees to it that a step that hangs does not go unnoticed.
//
// A step older than the soft timeout is reported once: its age and the stacks of all threads. One
// older than the hard timeout ends the process, so that whatever started it starts it anew; nothing
// in a process whose device hangs can be relied on to clean up.
// Threading: a thread for each timeout that is on, so that a report that cannot be written does not
// keep the process from ending. They start with the watchdog and end with it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

namespace augur::server {

struct WatchdogOptions {
  std::chrono::milliseconds soft_timeout{0};  // 0: off
  std::chrono::milliseconds hard_timeout{0};  // 0: off
  int stack_fd = 2;                           // where stacks go
};

class Watchdog {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Duration = std::chrono::steady_clock::duration;
  /// Exit status of a process that the hard timeout ends (EX_SOFTWARE of sysexits.h).
  static constexpr int kExitStatus = 70;

  /// `step_began` says when the step under way began, the epoch when none is
  /// (EngineLoop::step_began); any thread calls it, until the destructor returns. `on_hard` takes
  /// the place of ending the process, and is called once for a step.
  Watchdog(const WatchdogOptions& options,
           std::function<Time()> step_began,
           std::function<void(Duration age)> on_hard = end_process);
  ~Watchdog();

  /// Steps reported so far.
  int64_t num_soft_reports() const;

  /// Says why on stderr, where that takes it without waiting, and ends the process at once: no
  /// destructor runs.
  [[noreturn]] static void end_process(Duration age);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::server
