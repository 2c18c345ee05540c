// API calls under way: from a parsed call to the last byte of its answer.
//
// A call is one or more engine requests (its prompts) with one answer. It is queued whole or
// refused. A stream begins with the first step of any of its requests, so that what happens before
// (a full queue, a waiting timeout) still gets a status of its own. When the client goes away, what
// is left of the call is aborted at once.
// Threading: the HTTP server's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/server/api_call.h"
#include "engine/server/api_error.h"
#include "engine/server/engine_loop.h"
#include "engine/server/http_message.h"
#include "engine/server/observations.h"
#include "engine/server/server_metrics.h"

namespace augur::server {

class CallTable {
 public:
  /// `loop` and `metrics` outlive the table.
  CallTable(EngineLoop& loop, ServerMetrics& metrics);
  ~CallTable();

  /// Queues the requests of a call. abort() knows all of them by `id`, each by its client_id;
  /// `owner` is whose they are (the name of an API key). What comes of them goes to `reply`.
  void start(ApiCall call,
             const std::string& id,
             const std::string& owner,
             RequestTimer::Time arrival,
             std::shared_ptr<Reply> reply);
  /// Takes what the loop tells.
  void take(std::vector<LoopEvent>&& events);
  /// Ends the requests of this id and owner, or of any owner where null; their answers end with
  /// what there is. Returns how many there were.
  int abort(std::string_view id, const std::string* owner);
  void abort_all();

  int64_t num_requests() const { return static_cast<int64_t>(by_ticket_.size()); }
  int64_t num_open_streams() const { return num_open_streams_; }

 private:
  struct Call;
  struct Place {
    std::shared_ptr<Call> call;
    int request_idx = 0;
  };

  void take_one(LoopEvent& event, const Place& place);
  void finish_request(LoopEvent& event, const Place& place);
  void complete(Call& call);
  /// Ends a call that cannot be answered; what is left of it is aborted.
  void fail(Call& call, const ApiError& error, AbortCause cause);
  void abort_rest(const Call& call, AbortCause cause);
  void forget_id(const std::string& id, uint64_t ticket);
  void write(Call& call);
  void begin_stream(Call& call);
  void end(Call& call);

  EngineLoop& loop_;
  ServerMetrics& metrics_;
  std::unordered_map<uint64_t, Place> by_ticket_;  // requests that have not finished
  // The tickets of an id: those of a call under its own, one under each client_id.
  std::unordered_multimap<std::string, uint64_t> by_id_;
  int64_t num_open_streams_ = 0;
  Observations observations_;  // of one batch of events
  std::string out_;            // what an answer says now; keeps its memory
};

}  // namespace augur::server
