#include "engine/server/call_table.h"

#include <algorithm>
#include <utility>

#include "engine/log.h"
#include "engine/server/log_line.h"

namespace augur::server {
namespace {

constexpr int kRetryAfterShutdown_s = 5;

Refusal kind_of(Admission::Outcome outcome) {
  switch (outcome) {
    case Admission::Outcome::kDraining:
      return Refusal::kDraining;
    case Admission::Outcome::kDead:
      return Refusal::kDead;
    case Admission::Outcome::kAccepted:
    case Admission::Outcome::kQueueFull:
      break;
  }
  return Refusal::kQueueFull;
}

ApiError draining() {
  return unavailable("server_is_draining", "the server is shutting down and takes no new requests",
                     kRetryAfterShutdown_s);
}

/// Why a call was not let in.
ApiError refusal(const Admission& admission) {
  switch (admission.outcome) {
    case Admission::Outcome::kDraining:
      return draining();
    case Admission::Outcome::kDead:
      return engine_failed();
    case Admission::Outcome::kQueueFull:
    case Admission::Outcome::kAccepted:
      break;
  }
  return overloaded(admission.reason, admission.retry_after_s);
}

}  // namespace

struct CallTable::Call {
  std::string id;
  std::string owner;
  uint64_t first_ticket = 0;
  std::vector<std::string> client_ids;
  size_t num_requests = 0;
  size_t num_unfinished = 0;
  bool is_streamed = false;
  bool has_begun = false;  // the stream
  bool is_over = false;    // answered, or nobody is there to be answered
  std::unique_ptr<Answer> answer;
  std::shared_ptr<Reply> reply;
  std::vector<RequestTimer> timers;  // of the requests
};

CallTable::CallTable(EngineLoop& loop, ServerMetrics& metrics) : loop_(loop), metrics_(metrics) {}
CallTable::~CallTable() = default;

void CallTable::start(ApiCall parsed,
                      const std::string& id,
                      const std::string& owner,
                      RequestTimer::Time arrival,
                      std::shared_ptr<Reply> reply) {
  if (!reply->is_open()) return;
  const size_t num_requests = parsed.requests.size();
  std::vector<RequestTimer> timers;
  for (const Request& request : parsed.requests) timers.emplace_back(arrival, request.sampling.n);
  const Admission admission = loop_.submit(std::move(parsed.requests));
  if (admission.outcome != Admission::Outcome::kAccepted) {
    const ApiError error = refusal(admission);
    metrics_.count_refusal(kind_of(admission.outcome));
    metrics_.count_response(error.status);
    reply->send(error_response(error));
    return;
  }
  auto call = std::make_shared<Call>();
  call->id = id;
  call->owner = owner;
  call->first_ticket = admission.first_ticket;
  call->num_requests = num_requests;
  call->num_unfinished = num_requests;
  call->is_streamed = parsed.is_streamed;
  call->client_ids = std::move(parsed.client_ids);
  call->answer = std::move(parsed.answer);
  call->reply = std::move(reply);
  call->timers = std::move(timers);
  for (size_t i = 0; i < num_requests; ++i) {
    const uint64_t ticket = admission.first_ticket + i;
    by_ticket_.emplace(ticket, Place{call, static_cast<int>(i)});
    by_id_.emplace(id, ticket);
    if (i < call->client_ids.size()) by_id_.emplace(call->client_ids[i], ticket);
  }
  call->reply->on_close([this, weak = std::weak_ptr<Call>(call)] {
    const std::shared_ptr<Call> gone = weak.lock();
    if (!gone || gone->is_over) return;
    end(*gone);
    abort_rest(*gone, AbortCause::kClient);
  });
}

void CallTable::take(std::vector<LoopEvent>&& events) {
  observations_.clear();
  const RequestTimer::Time now = std::chrono::steady_clock::now();
  for (LoopEvent& event : events) {
    const auto found = by_ticket_.find(event.ticket);
    if (found == by_ticket_.end()) continue;
    const Place place = found->second;
    place.call->timers[place.request_idx].on_event(event, now, observations_);
    if (event.kind == LoopEvent::Kind::kFinished) by_ticket_.erase(found);
    take_one(event, place);
  }
  metrics_.add(observations_);
}

void CallTable::take_one(LoopEvent& event, const Place& place) {
  Call& call = *place.call;
  switch (event.kind) {
    case LoopEvent::Kind::kStarted:
      if (!call.is_over && call.is_streamed && !call.has_begun) begin_stream(call);
      return;
    case LoopEvent::Kind::kUpdate:
      if (call.is_over) return;
      out_.clear();
      call.answer->on_update(place.request_idx, event.update, out_);
      write(call);
      return;
    case LoopEvent::Kind::kFinished:
      finish_request(event, place);
      return;
  }
}

void CallTable::finish_request(LoopEvent& event, const Place& place) {
  Call& call = *place.call;
  if (is_logged(LogLevel::kDebug)) {
    log_debug("{}: {}", call.id, finished_line(event.result, event.cause));
  }
  --call.num_unfinished;
  if (!call.is_over) {
    // Once a stream has begun it ends in its own form, with what there is.
    if (event.cause == AbortCause::kWaitingTimeout && !call.has_begun) {
      fail(call, overloaded("the request waited too long for its turn"), event.cause);
    } else if (event.cause == AbortCause::kShutdown && !call.has_begun) {
      fail(call, draining(), event.cause);
    } else if (event.cause == AbortCause::kFailed && !call.has_begun) {
      fail(call, ApiError(500, "server_error", "engine_failed", "", event.result.error),
           event.cause);
    } else {
      out_.clear();
      call.answer->on_finished(place.request_idx, std::move(event.result), out_);
      write(call);
      if (call.num_unfinished == 0) complete(call);
    }
  }
  forget_id(call.id, event.ticket);
  const size_t idx = static_cast<size_t>(place.request_idx);
  if (idx < call.client_ids.size()) forget_id(call.client_ids[idx], event.ticket);
}

void CallTable::forget_id(const std::string& id, uint64_t ticket) {
  const auto [begin, end] = by_id_.equal_range(id);
  const auto found =
      std::find_if(begin, end, [&](const auto& entry) { return entry.second == ticket; });
  if (found != end) by_id_.erase(found);
}

void CallTable::begin_stream(Call& call) {
  call.has_begun = true;
  ++num_open_streams_;
  metrics_.count_response(200);
  call.reply->begin_stream();
}

void CallTable::end(Call& call) {
  call.is_over = true;
  if (call.has_begun) --num_open_streams_;
}

void CallTable::complete(Call& call) {
  out_.clear();
  try {
    call.answer->on_complete(out_);
  } catch (const ApiError& error) {
    end(call);
    metrics_.count_response(error.status);
    call.reply->send(error_response(error));
    return;
  }
  if (call.is_streamed) write(call);
  end(call);
  if (call.is_streamed) {
    call.reply->end();
  } else {
    metrics_.count_response(200);
    call.reply->send({.body = out_});
  }
}

void CallTable::fail(Call& call, const ApiError& error, AbortCause cause) {
  end(call);
  metrics_.count_response(error.status);
  call.reply->send(error_response(error));
  abort_rest(call, cause);
}

void CallTable::abort_rest(const Call& call, AbortCause cause) {
  for (size_t i = 0; i < call.num_requests; ++i) {
    const uint64_t ticket = call.first_ticket + i;
    if (by_ticket_.contains(ticket)) loop_.abort(ticket, cause);
  }
}

void CallTable::write(Call& call) {
  if (out_.empty()) return;
  if (call.is_streamed && !call.has_begun) begin_stream(call);  // it ended before its first step
  call.reply->write(out_);
}

int CallTable::abort(std::string_view id, const std::string* owner) {
  const auto [begin, end] = by_id_.equal_range(std::string(id));
  int num_requests = 0;
  for (auto it = begin; it != end; ++it) {
    const auto place = by_ticket_.find(it->second);
    if (place == by_ticket_.end()) continue;
    if (owner != nullptr && *owner != place->second.call->owner) continue;
    loop_.abort(it->second, AbortCause::kRequested);
    ++num_requests;
  }
  return num_requests;
}

void CallTable::abort_all() {
  loop_.abort_all(AbortCause::kRequested);
}

}  // namespace augur::server
