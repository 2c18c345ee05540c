// The text of a recording in the Trace Event Format of Chrome ("JSON object format").
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "engine/schedule/request.h"
#include "engine/server/engine_loop.h"

namespace augur::server {

/// A step, or the start or the end of a request.
struct TraceRecord {
  enum class Kind : uint8_t { kStep, kStarted, kFinished };
  Kind kind = Kind::kStep;
  StepReport step;  // kStep
  // Of requests.
  uint64_t ticket = 0;
  RequestTimes times;
  std::string id;  // kFinished
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;
  int64_t num_output_tokens = 0;         // kFinished
  AbortCause cause = AbortCause::kNone;  // kFinished
};

struct Recording {
  std::span<const TraceRecord> records;
  std::chrono::steady_clock::time_point begin;  // time 0 of the trace
  std::chrono::steady_clock::time_point end;
  int64_t num_dropped = 0;
};

/// Hands the text to `write` in pieces, until it returns false. Phases of requests that began
/// before the recording begin with it; those not over when it ended end with it.
void write_chrome_trace(const Recording& recording,
                        const std::function<bool(std::string_view piece)>& write);

}  // namespace augur::server
