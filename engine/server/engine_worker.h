// What a loop does with its engine: obeys commands, runs steps, and keeps book of the requests.
//
// When something throws, fail() ends every request, and from then on the worker is dead: what it is
// given ends at once.
// Threading: the engine's thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/schedule/engine.h"
#include "engine/server/admission_queue.h"
#include "engine/server/engine_loop.h"
#include "engine/server/live_requests.h"

namespace augur::server {

struct Submission {
  uint64_t first_ticket = 0;
  std::chrono::steady_clock::time_point submitted;
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

class EngineWorker {
 public:
  /// What has changed since it was last taken.
  struct Change {
    Amount left_queue;
    Amount started;  // of those
    Amount finished;
    EngineFigures figures;
  };

  EngineWorker(Engine& engine, const LoopOptions& options) : engine_(engine), options_(options) {}

  /// Appends to what is to be done, in order.
  void give(std::vector<Command>&& commands);
  /// Does it. What the engine or a call throws passes through; what comes after it stays to be
  /// done.
  void obey_commands();
  void abort_live(AbortCause cause);
  void abort_overdue();
  bool has_steps() const { return has_steps_; }
  /// One step of the engine, or nothing but the end of the last one's work: no report then. Throws
  /// what the engine throws.
  std::optional<StepReport> step();
  /// Ends every request for that reason, those among the commands too.
  void fail(const std::string& reason);

  bool has_requests() const { return !live_.empty(); }
  /// Empty when nothing can have changed.
  std::optional<Change> take_change();
  /// All there is to tell. Requires: take_change() was called since the last of them.
  std::vector<LoopEvent> take_events();
  EngineFigures figures() const;

 private:
  void obey(Submission& submission);
  void obey(Abort& abort) { this->abort(abort.ticket, abort.cause); }
  void obey(AbortAll& abort) { abort_live(abort.cause); }
  void obey(Call& call);
  void take(Request&& request, uint64_t ticket, std::chrono::steady_clock::time_point submitted);
  LoopEvent& add_event(LoopEvent::Kind kind, uint64_t ticket);
  void add_failure(uint64_t ticket, const LiveRequest& live, const std::string& error);
  void abort(uint64_t ticket, AbortCause cause);
  void fail_live();
  void settle();
  void settle_started(LoopEvent& event);
  void settle_finished(LoopEvent& event);

  Engine& engine_;
  const LoopOptions options_;

  std::deque<Command> commands_;
  LiveRequests live_;
  bool has_steps_ = false;
  std::string dead_reason_;  // not empty: dead

  std::vector<LoopEvent> events_;  // not handed over yet
  size_t num_settled_ = 0;         // of events_: those the books know of
  Change change_;                  // but for the figures
  bool is_changed_ = false;
};

}  // namespace augur::server
