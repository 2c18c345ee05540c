// The server's regular log lines: how it does every few seconds, and what each request came to.
// Threading: one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "engine/server/engine_loop.h"

namespace augur::server {

/// What an interval's line is made from.
struct IntervalSample {
  std::chrono::steady_clock::time_point time;
  EngineFigures engine;
  int64_t num_kv_blocks = 0;
  int64_t num_queued_requests = 0;
  int64_t num_generated_tokens = 0;  // since the start
};

class IntervalLog {
 public:
  explicit IntervalLog(const IntervalSample& start) : last_(start) {}

  /// What happened since the last call: "running 12  waiting 3  kv 41%  prefix hits 87%  prompt
  /// 8123.0 tok/s  generated 611.2 tok/s". Empty when nothing did and nobody is there.
  std::string line(const IntervalSample& now);

 private:
  IntervalSample last_;
};

/// A request that has ended, in a line. Times are counted from its submission.
std::string finished_line(const RequestResult& result, AbortCause cause);

}  // namespace augur::server
