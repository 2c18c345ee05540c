// An engine on a thread of its own, reached from others.
//
// Who may enter is decided where submit() is called: the queue is bounded in requests and in
// prompt tokens, counted from submit() to the first step of a request. What happens to requests
// comes back in batches, one per step, so that a thousand streams cost one hand-over.
// States: running -> draining (nothing new; what is there is finished) -> stopped. When a step
// throws, every request is failed and the loop is dead: submit() refuses and is_dead() says so.
// Every accepted request gets exactly one kFinished, whatever happens.
// Threading: everything but the sink and call()'s functions may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/schedule/engine.h"
#include "engine/schedule/request.h"

namespace augur::server {

struct LoopOptions {
  int64_t max_queued_requests = 1024;  // engine requests, not calls; 0: none waits
  int64_t max_queued_tokens = 1 << 20;
  // Completions that run at once (EngineOptions::max_batch_size). What finds so many places free is
  // let in whatever the bounds above: it does not wait.
  int64_t num_places = 0;
  // 0: no limit. Kept between steps.
  std::chrono::milliseconds waiting_timeout{0};  // from submission to the first step
  std::chrono::milliseconds running_timeout{0};  // from there to the end
};

/// Why a request ended without having been finished by the model.
enum class AbortCause : uint8_t {
  kNone,
  kClient,     // the connection closed
  kRequested,  // /abort_request
  kWaitingTimeout,
  kRunningTimeout,
  kShutdown,  // the drain's deadline
  kFailed,    // RequestResult::error says why
};

/// What happened to one request. Times count from submit(), not from Engine::submit().
struct LoopEvent {
  enum class Kind : uint8_t { kStarted, kUpdate, kFinished };
  Kind kind = Kind::kStarted;
  uint64_t ticket = 0;
  RequestStart start;                    // kStarted
  RequestUpdate update;                  // kUpdate
  RequestResult result;                  // kFinished, which is the last of a ticket
  AbortCause cause = AbortCause::kNone;  // kFinished
};

struct Admission {
  enum class Outcome : uint8_t { kAccepted, kQueueFull, kDraining, kDead };
  Outcome outcome = Outcome::kAccepted;
  uint64_t first_ticket = 0;  // of the first request; the others follow
  int retry_after_s = 0;      // when refused for a full queue: judged by how fast the queue moves
  std::string reason;         // when refused, for people: what is full, and its bound
};

/// What is told of each step, on the engine's thread.
struct StepReport {
  std::chrono::steady_clock::time_point begin;
  std::chrono::steady_clock::time_point end;
  int64_t prefill_tokens = 0;
  int64_t decode_tokens = 0;
  int64_t num_running = 0;  // sequences, after the step
  int64_t num_waiting = 0;
};

/// What the engine held when the last step or command was done.
struct EngineFigures {
  int64_t num_running = 0;  // completions
  int64_t num_waiting = 0;
  int64_t num_free_kv_blocks = 0;
  int64_t num_cached_kv_blocks = 0;
  EngineCounters counters;
};

class EngineLoop {
 public:
  using Sink = std::function<void(std::vector<LoopEvent>&& events)>;
  using StepObserver = std::function<void(const StepReport& report)>;

  /// `engine` outlives the loop, and belongs to it from start() on. `sink` and `on_step` are called
  /// on the engine's thread and do not throw.
  EngineLoop(Engine& engine, const LoopOptions& options, Sink sink, StepObserver on_step);
  ~EngineLoop();  // as stop()
  void start();

  /// Queues all of `requests`, or none of them. There is at least one. Each must pass
  /// Engine::check, but for an id in use: such a request is told apart by its ticket, and only its
  /// default seed is not that of its id. Their callbacks are replaced.
  Admission submit(std::vector<Request> requests);
  /// Ends a request at the next step's end, or at once when none is under way. Nothing happens when
  /// it has ended.
  void abort(uint64_t ticket, AbortCause cause);
  /// Ends all requests.
  void abort_all(AbortCause cause);
  /// Runs `work` on the engine's thread between two steps; what it throws counts as a step that
  /// threw. False when the loop is dead or was stopped: `work` is not run then.
  bool call(std::function<void(Engine& engine)> work);

  /// Lets nothing more in. `on_idle` is called once on the engine's thread when the last request
  /// has ended. False after stop(): it is not called then.
  bool drain(std::function<void()> on_idle);
  /// Aborts what is left (kShutdown) and ends the thread. Requests get their events first. Waits
  /// for the step under way. Not from the sink, a step observer or call()'s functions.
  void stop();

  bool is_dead() const;
  bool is_draining() const;
  int64_t num_queued_requests() const;  // submitted, not started
  int64_t num_queued_tokens() const;
  int64_t num_requests() const;  // submitted, not finished
  /// When the step under way began; the epoch when none is. For the watchdog. Takes no lock.
  std::chrono::steady_clock::time_point step_began() const;
  EngineFigures figures() const;
  /// CPU time the engine's thread has used, in seconds.
  double cpu_s() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace augur::server
