// What takes the planner's orders: the pool of experts, or whatever stands before it.
#pragma once

#include <cstdint>

#include "cache/expert_fetcher.h"
#include "cache/expert_key.h"

namespace augur {

/// Where an expert is, as far as a prefetch is concerned.
enum class ExpertPlace : uint8_t {
  kAbsent,
  kOnTheWay,  // a fetch of it waits or runs
  kResident,
};

/// Threading: one thread calls. Nothing here waits.
class PrefetchSink {
 public:
  virtual ~PrefetchSink() = default;
  virtual ExpertPlace place(ExpertKey key) const = 0;
  /// Begins to fetch an absent expert, or makes the fetch of one on the way as urgent as
  /// `priority`. `probability` is that of its use in this step. False: there is no slot, or none
  /// whose expert is worth less, or the queue is full; the planner then stops for this layer.
  virtual bool prefetch(ExpertKey key, FetchPriority priority, double probability) = 0;
  /// An expert that prefetch() was asked to bring will not be used in this step. If its fetch still
  /// waits it may be given up.
  virtual void on_stale(ExpertKey key) = 0;
};

}  // namespace augur
