// How fast a queue moves, for telling those it refuses when to come again.
//
// Starts are counted with weights that fade with time, over the time something was queued: a queue
// that stood empty all night is not a slow one.
// Threading: guarded by its owner.
#pragma once

#include <chrono>
#include <cstdint>

namespace augur::server {

class QueueRate {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr int kMinRetryS = 1;
  static constexpr int kMaxRetryS = 60;

  /// The queue was empty and is not any more.
  void on_filled(Time now) { since_ = now; }
  /// So many requests with so many prompt tokens left the queue, which was not empty until `now`.
  void on_started(int64_t num_requests, int64_t num_tokens, Time now);
  /// Whole seconds, 1 to 60, until so many requests and so many tokens will have left. Before
  /// anything has, as long as the queue has stood.
  int retry_after_s(int64_t num_requests, int64_t num_tokens, Time now) const;

 private:
  Time since_;           // the time up to here is counted
  double busy_s_ = 0;    // faded
  double requests_ = 0;  // faded
  double tokens_ = 0;    // faded
};

}  // namespace augur::server
