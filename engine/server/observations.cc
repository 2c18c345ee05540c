#include "engine/server/observations.h"

#include <algorithm>

namespace augur::server {
namespace {

/// 0 where clocks were read in another order than things happened.
double seconds_between(RequestTimer::Time begin, RequestTimer::Time end) {
  return std::max(0.0, std::chrono::duration<double>(end - begin).count());
}

}  // namespace

void Observations::clear() {
  for (auto* times : {&first_token_s, &inter_token_s, &queue_s, &prefill_s, &decode_s, &total_s}) {
    times->clear();
  }
  prompt_tokens = cached_tokens = generated_tokens = 0;
  completions.fill(0);
  requests.fill(0);
}

RequestTimer::RequestTimer(Time arrival, int num_completions)
    : arrival_(arrival), last_tokens_(std::max(1, num_completions)) {}

void RequestTimer::on_event(const LoopEvent& event, Time now, Observations& observations) {
  switch (event.kind) {
    case LoopEvent::Kind::kStarted:
      observations.prompt_tokens += event.start.num_prompt_tokens;
      observations.cached_tokens += event.start.num_cached_tokens;
      break;
    case LoopEvent::Kind::kUpdate:
      on_update(event.update, now, observations);
      break;
    case LoopEvent::Kind::kFinished:
      on_finished(event, now, observations);
      break;
  }
}

void RequestTimer::on_update(const RequestUpdate& update, Time now, Observations& observations) {
  if (update.token_ids.empty()) return;
  observations.generated_tokens += static_cast<int64_t>(update.token_ids.size());
  if (!has_tokens_) observations.first_token_s.push_back(seconds_between(arrival_, now));
  has_tokens_ = true;
  Time& last = last_tokens_.at(update.completion_idx);
  if (last != Time()) observations.inter_token_s.push_back(seconds_between(last, now));
  last = now;
}

void RequestTimer::on_finished(const LoopEvent& event, Time now, Observations& observations) const {
  const RequestResult& result = event.result;
  ++observations.requests[static_cast<size_t>(event.cause)];
  for (const Completion& completion : result.completions) {
    ++observations.completions[static_cast<size_t>(completion.finish_reason)];
  }
  if (event.cause != AbortCause::kNone) return;
  // A prompt that was only scored ends as one whose max_tokens have been used up.
  if (result.completions.empty()) {
    ++observations.completions[static_cast<size_t>(FinishReason::kLength)];
  }
  const RequestTimes& times = result.times;
  const bool has_first = times.first_token != Time();
  const Time prefilled = has_first ? times.first_token : times.finished;
  observations.queue_s.push_back(seconds_between(arrival_, times.started));
  observations.prefill_s.push_back(seconds_between(times.started, prefilled));
  if (has_first) observations.decode_s.push_back(seconds_between(prefilled, times.finished));
  observations.total_s.push_back(seconds_between(arrival_, now));
}

}  // namespace augur::server
