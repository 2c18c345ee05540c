#include "engine/schedule/waiting_queue.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/require.h"

namespace augur {

void WaitingQueue::open(ActiveRequest& request) {
  const std::string& name = is_fair_ ? request.request.tenant : std::string();
  const auto found = tenants_.find(name);
  Tenant* tenant = nullptr;
  if (found != tenants_.end()) {
    tenant = found->second.get();
    if (tenant->num_requests == 0) --num_idle_;
  } else {
    auto made = std::make_unique<Tenant>(Tenant{.name = name, .number = num_seen_++});
    tenant = made.get();
    tenants_.emplace(tenant->name, std::move(made));
  }
  ++tenant->num_requests;
  request.tenant = tenant;
}

void WaitingQueue::close(ActiveRequest& request) {
  Tenant& tenant = *std::exchange(request.tenant, nullptr);
  if (--tenant.num_requests > 0) return;
  ++num_idle_;
  if (tenant.num_served <= floor()) {
    forget(tenant);
  } else if (num_idle_ > kMaxIdleTenants) {
    forget_idle();
  }
}

void WaitingQueue::add(Sequence& sequence) {
  Tenant& tenant = *sequence.request->tenant;
  if (tenant.waiting.empty()) tenant.num_served = std::max(tenant.num_served, floor());
  put_back(sequence);
}

void WaitingQueue::put_back(Sequence& sequence) {
  Tenant& tenant = *sequence.request->tenant;
  if (tenant.waiting.empty()) note_turn(tenant);
  tenant.waiting.insert(&sequence);
  ++num_waiting_;
}

void WaitingQueue::erase(Sequence& sequence) {
  Tenant& tenant = *sequence.request->tenant;
  AUGUR_REQUIRE(tenant.waiting.erase(&sequence) == 1, "the sequence does not wait");
  --num_waiting_;
  if (!tenant.waiting.empty()) return;
  turns_.erase({tenant.turn_key, tenant.number, &tenant});
  last_to_wait_ = &tenant;
}

const SequenceOrder& WaitingQueue::turn() {
  return least_served().waiting;
}

void WaitingQueue::count_prompt(Sequence& sequence, int64_t num_rows) {
  if (is_fair_) sequence.request->tenant->num_served += num_rows;
}

void WaitingQueue::count_output(ActiveRequest& request) {
  if (is_fair_) request.tenant->num_served += kOutputWeight;
}

int64_t WaitingQueue::floor() {
  if (!turns_.empty()) return least_served().num_served;
  return last_to_wait_ != nullptr ? last_to_wait_->num_served : last_served_;
}

// What tenants were served only rises, so who is first once its note is renewed is the least.
Tenant& WaitingQueue::least_served() {
  AUGUR_REQUIRE(!turns_.empty(), "nobody waits");
  for (;;) {
    const auto first = turns_.begin();
    Tenant& tenant = *std::get<2>(*first);
    if (tenant.turn_key == tenant.num_served) return tenant;
    turns_.erase(first);
    note_turn(tenant);
  }
}

void WaitingQueue::note_turn(Tenant& tenant) {
  tenant.turn_key = tenant.num_served;
  turns_.emplace(tenant.turn_key, tenant.number, &tenant);
}

void WaitingQueue::forget_idle() {
  std::vector<Tenant*> idle;
  for (const auto& [name, tenant] : tenants_) {
    if (tenant->num_requests == 0) idle.push_back(tenant.get());
  }
  std::sort(idle.begin(), idle.end(), [](const Tenant* a, const Tenant* b) {
    return std::tie(a->num_served, a->number) < std::tie(b->num_served, b->number);
  });
  // Half of them, so that this is rarely done.
  idle.resize(idle.size() - kMaxIdleTenants / 2);
  for (Tenant* tenant : idle) forget(*tenant);
}

void WaitingQueue::forget(Tenant& tenant) {
  if (last_to_wait_ == &tenant) {
    last_served_ = tenant.num_served;
    last_to_wait_ = nullptr;
  }
  --num_idle_;
  tenants_.erase(tenants_.find(tenant.name));
}

}  // namespace augur
