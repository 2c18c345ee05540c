// What brings the weights of experts into the slots of a pool, as the pool sees it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "cache/expert_key.h"

namespace augur {

/// How urgent a fetch is; the lower value goes first.
enum class FetchPriority : uint8_t {
  kDemand,       // a layer waits for it
  kNextLayer,    // predicted for the layer after the one that runs
  kLaterLayers,  // predicted for a layer further on
  kBackground,   // nobody waits
};
inline constexpr int kNumFetchPriorities = 4;

enum class FetchOutcome : uint8_t {
  kDone,
  kCancelled,  // the slot's content is undefined
  kFailed,     // likewise; the error says why
};

/// How a fetch went.
struct FetchEnd {
  ExpertKey key;
  int slot = 0;
  FetchOutcome outcome = FetchOutcome::kDone;
  int64_t read_bytes = 0;  // taken from the slow tier, also when cancelled or failed
  std::string error;       // of kFailed: what, where and why, for people
};

/// A fetch is named by its slot, whose memory belongs to the fetcher from start() until the fetch
/// was reported by take_ended(). Implementations work in the background.
/// Threading: one thread calls.
class ExpertFetcher {
 public:
  virtual ~ExpertFetcher() = default;
  /// Begins to read `key` into `slot`. Never waits. Requires that no fetch of this slot is under
  /// way.
  virtual void start(ExpertKey key, int slot, FetchPriority priority) = 0;
  /// Makes the fetch of `slot` as urgent as `priority` where it is less. Nothing happens when it
  /// has ended already.
  virtual void raise(int slot, FetchPriority priority) = 0;
  /// Asks for the fetch of `slot` to be given up: it ends soon, cancelled or, if it was all but
  /// done, done.
  virtual void cancel(int slot) = 0;
  /// Fetches that ended since the last call, in the order in which they did; valid until the next
  /// call. With `wait`, blocks until there is at least one; requires then that a fetch is under
  /// way or was not reported yet.
  virtual std::span<const FetchEnd> take_ended(bool wait) = 0;
};

}  // namespace augur
