// The requests a loop has given to its engine and whose end it has not seen.
//
// Deadlines are kept in order, so that asking for the next costs the same however many there are.
// Threading: engine thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>

#include "engine/schedule/request.h"
#include "engine/server/admission_queue.h"
#include "engine/server/engine_loop.h"

namespace augur::server {

struct LiveRequest {
  using Time = std::chrono::steady_clock::time_point;

  std::string engine_id;  // what the engine calls it
  std::string id;         // what its submitter calls it
  Time submitted;
  Time deadline;  // the epoch: none
  Amount amount;
  bool is_started = false;
  AbortCause cause = AbortCause::kNone;
};

class LiveRequests {
 public:
  using Time = LiveRequest::Time;

  /// Takes note of `request`, and changes its id where another has it.
  LiveRequest& add(uint64_t ticket, Request& request, Time submitted);
  /// Null when there is none.
  LiveRequest* find(uint64_t ticket);
  void erase(uint64_t ticket);
  bool empty() const { return by_ticket_.empty(); }
  /// By rising ticket.
  std::map<uint64_t, LiveRequest>& all() { return by_ticket_; }

  /// In place of the deadline it had. A timeout of 0 is none.
  void set_deadline(uint64_t ticket, Time from, std::chrono::milliseconds timeout);
  bool has_deadlines() const { return !deadlines_.empty(); }
  /// One whose deadline has passed, which it then has no more.
  std::optional<uint64_t> take_overdue(Time now);

 private:
  void clear_deadline(uint64_t ticket, LiveRequest& live);

  std::map<uint64_t, LiveRequest> by_ticket_;
  std::unordered_set<std::string> engine_ids_;
  std::set<std::pair<Time, uint64_t>> deadlines_;
};

}  // namespace augur::server
