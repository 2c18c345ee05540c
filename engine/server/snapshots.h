// The figures of experts, for whoever asks while the engine runs.
//
// They are taken between two steps. Who asks during a long step gets those taken last, once a
// second has passed, so that a stuck engine can still be looked at.
// Threading: the HTTP server's thread, but for the engine's part of a request.
#pragma once

#include <chrono>
#include <functional>
#include <vector>

#include "engine/server/served_model.h"

namespace augur::server {

class EngineLoop;
class HttpServer;

class Snapshots {
 public:
  using Receiver = std::function<void(const ExpertSnapshot& snapshot)>;

  /// All outlive the snapshots, and what they asked for. `first`: before the engine runs.
  Snapshots(const ServedModel& model, EngineLoop& loop, HttpServer& server, ExpertSnapshot first);

  /// Calls `receiver` on this thread, later. `with_experts`: ExpertSnapshot::experts is wanted.
  void ask(bool with_experts, Receiver receiver);
  /// Serves those who have waited long enough. To be called a few times a second.
  void tick();

 private:
  struct Pending {
    std::chrono::steady_clock::time_point asked;
    Receiver receiver;
  };
  void take(ExpertSnapshot&& snapshot);

  const ServedModel& model_;
  EngineLoop& loop_;
  HttpServer& server_;
  ExpertSnapshot last_;
  std::vector<Pending> pending_;
  bool is_asked_ = false;  // the engine's thread has been asked, and has not answered
  bool is_asked_with_experts_ = false;
};

}  // namespace augur::server
