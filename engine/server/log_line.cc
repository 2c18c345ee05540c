#include "engine/server/log_line.h"

#include <fmt/format.h>

#include <algorithm>

namespace augur::server {
namespace {

using Time = RequestTimes::Time;

double percent(int64_t part, int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
}

/// "12.3 ms", or "-" where the end was not reached.
std::string ms_between(Time begin, Time end) {
  if (begin == Time() || end == Time()) return "-";
  return fmt::format("{:.1f} ms", std::chrono::duration<double, std::milli>(end - begin).count());
}

const char* word(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      break;
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kAborted:
      return "abort";
    case FinishReason::kFailed:
      return "error";
  }
  return "none";
}

const char* word(AbortCause cause) {
  switch (cause) {
    case AbortCause::kNone:
      break;
    case AbortCause::kClient:
      return "the client left";
    case AbortCause::kRequested:
      return "aborted on request";
    case AbortCause::kWaitingTimeout:
      return "waited too long";
    case AbortCause::kRunningTimeout:
      return "ran too long";
    case AbortCause::kShutdown:
      return "the server shut down";
    case AbortCause::kFailed:
      return "failed";
  }
  return "finished";
}

/// Why it ended: of its completions, each reason once, in their order.
std::string end_of(const RequestResult& result, AbortCause cause) {
  if (cause != AbortCause::kNone) return word(cause);
  if (result.completions.empty()) return "scored";
  std::string words;
  for (const Completion& completion : result.completions) {
    const std::string reason = word(completion.finish_reason);
    if (words.find(reason) != std::string::npos) continue;
    words += words.empty() ? reason : ", " + reason;
  }
  return words;
}

}  // namespace

std::string IntervalLog::line(const IntervalSample& now) {
  const EngineCounters& counters = now.engine.counters;
  const EngineCounters& before = last_.engine.counters;
  const double elapsed_s = std::chrono::duration<double>(now.time - last_.time).count();
  const auto per_second = [elapsed_s](int64_t count) {
    return elapsed_s > 0 ? static_cast<double>(count) / elapsed_s : 0;
  };
  const int64_t num_waiting = std::max(now.engine.num_waiting, now.num_queued_requests);
  const int64_t num_used_blocks =
      now.num_kv_blocks - now.engine.num_free_kv_blocks - now.engine.num_idle_kv_blocks;
  const bool is_idle = counters.num_steps == before.num_steps &&
                       counters.finished_requests == before.finished_requests &&
                       now.engine.num_running == 0 && num_waiting == 0;
  std::string line;
  if (!is_idle) {
    line = fmt::format(
        "running {}  waiting {}  kv {:.0f}%  prefix hits {:.0f}%  prompt {:.1f} tok/s  "
        "generated {:.1f} tok/s",
        now.engine.num_running, num_waiting, percent(num_used_blocks, now.num_kv_blocks),
        percent(counters.prefix_hit_tokens - before.prefix_hit_tokens,
                counters.prefix_query_tokens - before.prefix_query_tokens),
        per_second(counters.prefill_tokens - before.prefill_tokens),
        per_second(now.num_generated_tokens - last_.num_generated_tokens));
  }
  last_ = now;
  return line;
}

std::string finished_line(const RequestResult& result, AbortCause cause) {
  int64_t num_output = 0;
  int64_t longest = 0;
  for (const Completion& completion : result.completions) {
    const int64_t length = std::ssize(completion.output_ids);
    num_output += length;
    longest = std::max(longest, length);
  }
  const RequestTimes& times = result.times;
  // Completions of a request are decoded side by side: the longest one tells the pace.
  std::string pace = "-";
  if (longest > 1 && times.first_token != Time()) {
    const std::chrono::duration<double, std::milli> decode = times.finished - times.first_token;
    pace = fmt::format("{:.2f} ms/token", decode.count() / static_cast<double>(longest - 1));
  }
  return fmt::format(
      "request {}: {} prompt tokens ({} cached), {} output tokens; queue {}, first token {}, {}, "
      "total {}; {}{}{}",
      result.id, result.num_prompt_tokens, result.num_cached_tokens, num_output,
      ms_between(times.submitted, times.started), ms_between(times.submitted, times.first_token),
      pace, ms_between(times.submitted, times.finished), end_of(result, cause),
      result.error.empty() ? "" : ": ", result.error);
}

}  // namespace augur::server
