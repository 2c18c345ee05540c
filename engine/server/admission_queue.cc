#include "engine/server/admission_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace augur::server {
namespace {

std::string full(const char* unit, int64_t num_queued, int64_t num_more, int64_t bound) {
  return fmt::format("the queue is full: {} {} wait, and {} more would be beyond its bound of {}",
                     num_queued, unit, num_more, bound);
}

}  // namespace

void Amount::add(const Amount& other) {
  requests += other.requests;
  tokens += other.tokens;
  completions += other.completions;
}

void Amount::subtract(const Amount& other) {
  requests -= other.requests;
  tokens -= other.tokens;
  completions -= other.completions;
}

Amount amount_of(const Request& request) {
  return {1, static_cast<int64_t>(request.prompt_ids.size()), std::max(1, request.sampling.n)};
}

std::string AdmissionQueue::why_full(const Amount& asked) const {
  if (unfinished_.completions + asked.completions <= options_.num_places) return "";
  if (queued_.requests + asked.requests > options_.max_queued_requests) {
    return full("requests", queued_.requests, asked.requests, options_.max_queued_requests);
  }
  if (queued_.tokens + asked.tokens > options_.max_queued_tokens) {
    return full("prompt tokens", queued_.tokens, asked.tokens, options_.max_queued_tokens);
  }
  return "";
}

bool AdmissionQueue::enter(const Amount& asked, Time now, Admission& refusal) {
  if (std::string reason = why_full(asked); !reason.empty()) {
    refusal.outcome = Admission::Outcome::kQueueFull;
    refusal.reason = std::move(reason);
    refusal.retry_after_s =
        rate_.retry_after_s(queued_.requests + asked.requests - options_.max_queued_requests,
                            queued_.tokens + asked.tokens - options_.max_queued_tokens, now);
    return false;
  }
  if (queued_.requests == 0) rate_.on_filled(now);
  queued_.add(asked);
  unfinished_.add(asked);
  return true;
}

void AdmissionQueue::leave(const Amount& left, const Amount& started, Time now) {
  queued_.subtract(left);
  if (started.requests > 0) rate_.on_started(started.requests, started.tokens, now);
}

}  // namespace augur::server
