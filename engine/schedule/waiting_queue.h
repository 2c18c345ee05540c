// Those that wait to be admitted for the first time, by tenant, and whose turn it is.
//
// Within a tenant sequences are in order: of priority, then of age. With fair queueing the tenant
// that was served least goes next: of prompts the tokens that had to be computed count once, each
// output token counts twice (Sheng et al. 2024, "Fairness in Serving Large Language Models"). A
// tenant that begins to wait is lifted to the least of those that wait, or to the one that waited
// last: having been away earns no credit. Without fair queueing all are one tenant.
//
// Tenants without requests are forgotten where that forgives nothing, and beyond kMaxIdleTenants
// those first of whom least is known to their disadvantage.
// Threading: one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>

#include "engine/schedule/sequence.h"

namespace augur {

/// The better of two sequences: who has the lower priority value; of those, who is older.
struct ComesFirst {
  bool operator()(const Sequence* a, const Sequence* b) const {
    return std::tie(a->priority, a->age) < std::tie(b->priority, b->age);
  }
};
using SequenceOrder = std::set<Sequence*, ComesFirst>;

struct Tenant {
  std::string name;
  int64_t number = 0;  // in the order they came
  int64_t num_served = 0;
  int64_t num_requests = 0;
  SequenceOrder waiting;
  int64_t turn_key = 0;  // num_served when its turn was noted; while some wait
};

class WaitingQueue {
 public:
  static constexpr size_t kMaxIdleTenants = 1024;
  static constexpr int64_t kOutputWeight = 2;

  explicit WaitingQueue(bool is_fair) : is_fair_(is_fair) {}

  /// A request begins, and ends, when none of its sequences waits.
  void open(ActiveRequest& request);
  void close(ActiveRequest& request);

  /// A sequence begins to wait. Its request is open.
  void add(Sequence& sequence);
  /// One that was erased waits on, as if it had not been.
  void put_back(Sequence& sequence);
  void erase(Sequence& sequence);
  bool empty() const { return num_waiting_ == 0; }
  int64_t size() const { return num_waiting_; }
  /// Those of the tenant whose turn it is, in order. Requires that one waits.
  const SequenceOrder& turn();

  /// A sequence that was erased is served: so many rows of its prompt will be computed.
  void count_prompt(Sequence& sequence, int64_t num_rows);
  /// A token was put out for a request.
  void count_output(ActiveRequest& request);

  int64_t num_tenants() const { return static_cast<int64_t>(tenants_.size()); }

 private:
  /// Below this no tenant waits: what a tenant that comes is lifted to.
  int64_t floor();
  /// The tenant that waits and was served least. Requires that one waits.
  Tenant& least_served();
  void note_turn(Tenant& tenant);
  void forget_idle();
  void forget(Tenant& tenant);

  const bool is_fair_;

  // By name; the keys are the tenants' own.
  std::unordered_map<std::string_view, std::unique_ptr<Tenant>> tenants_;
  // Those that wait: by what they were served when it was noted, which is at most what it is.
  std::set<std::tuple<int64_t, int64_t, Tenant*>> turns_;
  Tenant* last_to_wait_ = nullptr;  // of those that stopped waiting; null when it was forgotten
  int64_t last_served_ = 0;         // what that one had been served then
  int64_t num_waiting_ = 0;
  int64_t num_seen_ = 0;  // tenants
  size_t num_idle_ = 0;   // tenants without requests
};

}  // namespace augur
