// How much waits, how much there is, and who may join.
//
// A request is queued from the moment it is let in until its first step, and unfinished until its
// end.
// Threading: guarded by its owner.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "engine/schedule/request.h"
#include "engine/server/engine_loop.h"
#include "engine/server/queue_rate.h"

namespace augur::server {

/// What some requests amount to.
struct Amount {
  int64_t requests = 0;
  int64_t tokens = 0;  // of prompts
  int64_t completions = 0;

  void add(const Amount& other);
  void subtract(const Amount& other);
};

Amount amount_of(const Request& request);

class AdmissionQueue {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit AdmissionQueue(const LoopOptions& options) : options_(options) {}

  /// Counts `asked` in. Or leaves everything as it is and returns false, and `refusal` says why.
  bool enter(const Amount& asked, Time now, Admission& refusal);
  /// `left` is not queued any more; `started` is the part of it that was not aborted before.
  void leave(const Amount& left, const Amount& started, Time now);
  void finish(const Amount& finished) { unfinished_.subtract(finished); }

  const Amount& queued() const { return queued_; }
  const Amount& unfinished() const { return unfinished_; }

 private:
  std::string why_full(const Amount& asked) const;

  const LoopOptions options_;
  Amount queued_;
  Amount unfinished_;
  QueueRate rate_;
};

}  // namespace augur::server
