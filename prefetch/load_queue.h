// Which chunk of which expert is read next: the state of a Loader's fetches, without the reading.
//
// A fetch waits in the list of its priority until all its chunks were begun. Whoever takes work
// gets the next chunk of the most urgent fetch, so that a more urgent one that arrives overtakes
// between two chunks while the other keeps its place and its progress. The chunks of one fetch are
// in the hands of one worker at a time, which puts them in place in their order. While demand is
// unfinished, no chunk of anything else is begun: the device is demand's. Otherwise few reads of
// prefetch are under way at once, so that the demand that arrives finds a short queue in the
// device. Threading: the caller locks; num_demands() may be read without. Nothing is allocated
// after construction but the text of an error.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cache/expert_fetcher.h"
#include "prefetch/expert_store.h"

namespace augur {

/// What a Loader did since it was made; arrays are by FetchPriority.
struct LoaderCounters {
  std::array<int64_t, kNumFetchPriorities> read_bytes = {};    // by the priority when it was read
  std::array<int64_t, kNumFetchPriorities> queued_bytes = {};  // now: of fetches, not yet begun
  int64_t num_started = 0;
  int64_t num_done = 0;
  int64_t num_cancelled = 0;
  int64_t num_failed = 0;
  /// From a fetch's becoming demand to the beginning of its next read, over those that got there.
  int64_t num_demand_waits = 0;
  int64_t demand_wait_us = 0;
};

/// One chunk to read and put in place.
struct LoadTask {
  ExpertKey key;
  int slot = 0;
  FetchPriority priority = FetchPriority::kDemand;  // when it was taken
  int chunk_idx = 0;
  bool is_last = false;  // of the expert
  ExpertChunk chunk;
};

class LoadQueue {
 public:
  using Clock = std::chrono::steady_clock;

  /// `store` outlives the queue. Requires all numbers to be positive.
  LoadQueue(const ExpertStore& store,
            int64_t max_chunk_bytes,
            int num_slots,
            int max_prefetch_reads);

  // As ExpertFetcher's.
  void start(ExpertKey key, int slot, FetchPriority priority, Clock::time_point now);
  void raise(int slot, FetchPriority priority, Clock::time_point now);
  void cancel(int slot);
  void cancel_all();

  /// Whether take(worker) would return a task.
  bool has_task(int worker) const { return find(worker) >= 0; }
  /// The next chunk for `worker` to read.
  std::optional<LoadTask> take(int worker, Clock::time_point now);
  /// The read of the task ended with so many of its bytes, before they are put in place.
  void on_read(const LoadTask& task, int64_t num_bytes);
  /// Whether the task's bytes are still to be put in place: its fetch did not fail, nor was it
  /// cancelled.
  bool is_wanted(const LoadTask& task) const;
  /// The task is over: in place, or dropped, and then with an error where it failed. Follows
  /// on_read; the tasks of a fetch end in their order.
  void finish(const LoadTask& task, bool is_in_place, std::string error);

  /// The priority of a fetch under way.
  FetchPriority priority(int slot) const { return jobs_[slot].priority; }
  /// Whether take_ended would give something, and whether something is still to come.
  bool has_ended() const { return !ended_.empty(); }
  bool has_unfinished() const { return num_unfinished_ > 0; }
  /// Replaces `ended` by what ended since the last call, in that order.
  void take_ended(std::vector<FetchEnd>& ended);

  const LoaderCounters& counters() const { return counters_; }
  /// Fetches of priority kDemand that have not ended.
  int num_demands() const { return num_demands_.load(std::memory_order_relaxed); }

 private:
  enum class State : uint8_t { kIdle, kUnderWay, kUnreported };
  struct Job {
    State state = State::kIdle;
    ExpertKey key;
    FetchPriority priority = FetchPriority::kDemand;
    bool is_cancelled = false;
    bool is_listed = false;
    int owner = -1;  // the worker with tasks of it; -1: any may take it
    int num_chunks = 0;
    int num_begun = 0;
    int num_in_place = 0;
    int num_tasks = 0;         // begun and not over
    int64_t queued_bytes = 0;  // not begun
    int64_t read_bytes = 0;
    std::optional<Clock::time_point> demand_since;
    std::string error;
    int previous = -1;  // in the list of its priority
    int next = -1;
  };
  struct List {
    int first = -1;
    int last = -1;
  };

  int find(int worker) const;
  void append(int slot);
  void unlist(int slot);
  void end_wait(Job& job, Clock::time_point now);
  void give_up(int slot);
  void end(int slot);

  const ExpertStore& store_;
  const int64_t max_chunk_bytes_;
  const int max_prefetch_reads_;
  std::vector<Job> jobs_;  // by slot
  std::array<List, kNumFetchPriorities> lists_;
  int num_prefetch_reads_ = 0;  // under way in the device
  int num_unfinished_ = 0;
  std::atomic<int> num_demands_{0};
  std::vector<FetchEnd> ended_;
  LoaderCounters counters_;
};

}  // namespace augur
