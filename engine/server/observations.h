// From what a loop tells of requests to what metrics count.
//
// Whoever handles events keeps a RequestTimer for each request and one Observations, which a batch
// of events fills and the metrics then take as a whole: a step with a thousand tokens costs one
// hand-over.
// Threading: plain data, used by one thread at a time.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "engine/server/engine_loop.h"

namespace augur::server {

inline constexpr size_t kNumFinishReasons = static_cast<size_t>(FinishReason::kFailed) + 1;
inline constexpr size_t kNumAbortCauses = static_cast<size_t>(AbortCause::kFailed) + 1;

/// Keeps its memory when cleared. Times are in seconds.
struct Observations {
  std::vector<double> first_token_s;  // from arrival to the first token of any completion
  // Between tokens of a completion; one gap for an update, however many tokens it brings.
  std::vector<double> inter_token_s;
  std::vector<double> queue_s;    // from arrival to the first step
  std::vector<double> prefill_s;  // from there to the first token
  std::vector<double> decode_s;   // from there to the end
  std::vector<double> total_s;    // from arrival to the end
  int64_t prompt_tokens = 0;      // of requests that started
  int64_t cached_tokens = 0;      // of those, found in the prefix cache
  int64_t generated_tokens = 0;
  std::array<int64_t, kNumFinishReasons> completions{};  // that ended, by FinishReason
  std::array<int64_t, kNumAbortCauses> requests{};       // that ended, by AbortCause

  void clear();
};

/// The clock of one request.
class RequestTimer {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `arrival`: when the request had been read from its connection.
  RequestTimer(Time arrival, int num_completions);

  /// Takes an event of the request, which is handed on at `now`, before anything is moved out of
  /// it. Only requests that the model finished have their times counted: one that was aborted says
  /// nothing about how long they take.
  void on_event(const LoopEvent& event, Time now, Observations& observations);

  Time arrival() const { return arrival_; }

 private:
  void on_update(const RequestUpdate& update, Time now, Observations& observations);
  void on_finished(const LoopEvent& event, Time now, Observations& observations) const;

  Time arrival_;
  bool has_tokens_ = false;
  std::vector<Time> last_tokens_;  // by completion; the epoch before the first
};

}  // namespace augur::server
