#include "engine/server/live_requests.h"

#include <fmt/format.h>

namespace augur::server {

LiveRequest& LiveRequests::add(uint64_t ticket, Request& request, Time submitted) {
  LiveRequest& live = by_ticket_[ticket];
  live.id = request.id;
  live.submitted = submitted;
  live.amount = amount_of(request);
  while (!engine_ids_.insert(request.id).second) request.id += fmt::format("#{}", ticket);
  live.engine_id = request.id;
  return live;
}

LiveRequest* LiveRequests::find(uint64_t ticket) {
  const auto found = by_ticket_.find(ticket);
  return found == by_ticket_.end() ? nullptr : &found->second;
}

void LiveRequests::erase(uint64_t ticket) {
  const auto found = by_ticket_.find(ticket);
  if (found == by_ticket_.end()) return;
  clear_deadline(ticket, found->second);
  engine_ids_.erase(found->second.engine_id);
  by_ticket_.erase(found);
}

void LiveRequests::set_deadline(uint64_t ticket, Time from, std::chrono::milliseconds timeout) {
  LiveRequest& live = by_ticket_.at(ticket);
  clear_deadline(ticket, live);
  if (timeout.count() <= 0) return;
  live.deadline = from + timeout;
  deadlines_.emplace(live.deadline, ticket);
}

std::optional<uint64_t> LiveRequests::take_overdue(Time now) {
  if (deadlines_.empty() || deadlines_.begin()->first > now) return std::nullopt;
  const uint64_t ticket = deadlines_.begin()->second;
  clear_deadline(ticket, by_ticket_.at(ticket));
  return ticket;
}

void LiveRequests::clear_deadline(uint64_t ticket, LiveRequest& live) {
  if (live.deadline != Time()) deadlines_.erase({live.deadline, ticket});
  live.deadline = Time();
}

}  // namespace augur::server
