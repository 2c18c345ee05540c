#include "prefetch/load_queue.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/require.h"

namespace augur {
namespace {

constexpr size_t index_of(FetchPriority priority) {
  return static_cast<size_t>(priority);
}

}  // namespace

LoadQueue::LoadQueue(const ExpertStore& store,
                     int64_t max_chunk_bytes,
                     int num_slots,
                     int max_prefetch_reads)
    : store_(store), max_chunk_bytes_(max_chunk_bytes), max_prefetch_reads_(max_prefetch_reads) {
  AUGUR_REQUIRE(
      max_chunk_bytes > 0 && num_slots > 0 && max_prefetch_reads > 0,
      fmt::format("{} bytes, {} slots, {} reads", max_chunk_bytes, num_slots, max_prefetch_reads));
  jobs_.resize(static_cast<size_t>(num_slots));
  ended_.reserve(jobs_.size());
}

void LoadQueue::start(ExpertKey key, int slot, FetchPriority priority, Clock::time_point now) {
  AUGUR_REQUIRE(slot >= 0 && slot < std::ssize(jobs_), fmt::format("slot {}", slot));
  AUGUR_REQUIRE(jobs_[slot].state == State::kIdle,
                fmt::format("slot {} is being filled with {}", slot, describe(jobs_[slot].key)));
  Job job;
  job.num_chunks = store_.num_chunks(key, max_chunk_bytes_);
  job.state = State::kUnderWay;
  job.key = key;
  job.priority = priority;
  job.queued_bytes = store_.stored_bytes(key);
  if (priority == FetchPriority::kDemand) {
    job.demand_since = now;
    ++num_demands_;
  }
  jobs_[slot] = std::move(job);
  counters_.queued_bytes[index_of(priority)] += jobs_[slot].queued_bytes;
  ++counters_.num_started;
  ++num_unfinished_;
  append(slot);
}

void LoadQueue::raise(int slot, FetchPriority priority, Clock::time_point now) {
  AUGUR_REQUIRE(slot >= 0 && slot < std::ssize(jobs_), fmt::format("slot {}", slot));
  Job& job = jobs_[slot];
  if (job.state != State::kUnderWay || job.priority <= priority) return;
  const bool was_listed = job.is_listed;
  if (was_listed) unlist(slot);
  counters_.queued_bytes[index_of(job.priority)] -= job.queued_bytes;
  counters_.queued_bytes[index_of(priority)] += job.queued_bytes;
  job.priority = priority;
  if (was_listed) append(slot);
  if (priority != FetchPriority::kDemand) return;
  ++num_demands_;
  job.demand_since = now;
  if (job.num_begun == job.num_chunks) end_wait(job, now);
}

void LoadQueue::cancel(int slot) {
  AUGUR_REQUIRE(slot >= 0 && slot < std::ssize(jobs_), fmt::format("slot {}", slot));
  if (jobs_[slot].state != State::kUnderWay) return;
  jobs_[slot].is_cancelled = true;
  give_up(slot);
  if (jobs_[slot].num_tasks == 0) end(slot);
}

void LoadQueue::cancel_all() {
  for (int slot = 0; slot < std::ssize(jobs_); ++slot) cancel(slot);
}

// The first fetch, by priority and arrival, with a chunk that this worker may begin now.
int LoadQueue::find(int worker) const {
  for (size_t priority = 0; priority < lists_.size(); ++priority) {
    const bool is_prefetch = priority != index_of(FetchPriority::kDemand);
    if (is_prefetch && (num_demands() > 0 || num_prefetch_reads_ >= max_prefetch_reads_)) break;
    for (int slot = lists_[priority].first; slot >= 0; slot = jobs_[slot].next) {
      if (jobs_[slot].owner < 0 || jobs_[slot].owner == worker) return slot;
    }
  }
  return -1;
}

std::optional<LoadTask> LoadQueue::take(int worker, Clock::time_point now) {
  const int slot = find(worker);
  if (slot < 0) return {};
  Job& job = jobs_[slot];
  LoadTask task;
  task.key = job.key;
  task.slot = slot;
  task.priority = job.priority;
  task.chunk_idx = job.num_begun++;
  task.is_last = job.num_begun == job.num_chunks;
  task.chunk = store_.chunk(job.key, task.chunk_idx, max_chunk_bytes_);
  job.owner = worker;
  ++job.num_tasks;
  job.queued_bytes -= task.chunk.num_bytes;
  counters_.queued_bytes[index_of(job.priority)] -= task.chunk.num_bytes;
  if (job.priority != FetchPriority::kDemand) ++num_prefetch_reads_;
  end_wait(job, now);
  if (task.is_last) unlist(slot);
  return task;
}

void LoadQueue::on_read(const LoadTask& task, int64_t num_bytes) {
  if (task.priority != FetchPriority::kDemand) --num_prefetch_reads_;
  jobs_[task.slot].read_bytes += num_bytes;
  counters_.read_bytes[index_of(task.priority)] += num_bytes;
}

bool LoadQueue::is_wanted(const LoadTask& task) const {
  const Job& job = jobs_[task.slot];
  // Given up too late to save a read: the expert is as good as there.
  const bool is_all_read = job.num_begun == job.num_chunks;
  return job.error.empty() && (!job.is_cancelled || is_all_read);
}

void LoadQueue::finish(const LoadTask& task, bool is_in_place, std::string error) {
  Job& job = jobs_[task.slot];
  --job.num_tasks;
  if (is_in_place) ++job.num_in_place;
  if (!error.empty() && job.error.empty()) {
    job.error = std::move(error);
    give_up(task.slot);
  }
  if (job.num_tasks > 0) return;
  job.owner = -1;
  if (job.is_cancelled || !job.error.empty() || job.num_in_place == job.num_chunks) {
    end(task.slot);
  }
}

void LoadQueue::take_ended(std::vector<FetchEnd>& ended) {
  ended.clear();
  std::swap(ended, ended_);
  for (const FetchEnd& fetch : ended) jobs_[fetch.slot].state = State::kIdle;
}

void LoadQueue::append(int slot) {
  Job& job = jobs_[slot];
  List& list = lists_[index_of(job.priority)];
  job.previous = list.last;
  job.next = -1;
  (list.last >= 0 ? jobs_[list.last].next : list.first) = slot;
  list.last = slot;
  job.is_listed = true;
}

void LoadQueue::unlist(int slot) {
  Job& job = jobs_[slot];
  List& list = lists_[index_of(job.priority)];
  (job.previous >= 0 ? jobs_[job.previous].next : list.first) = job.next;
  (job.next >= 0 ? jobs_[job.next].previous : list.last) = job.previous;
  job.is_listed = false;
}

void LoadQueue::end_wait(Job& job, Clock::time_point now) {
  if (!job.demand_since) return;
  ++counters_.num_demand_waits;
  counters_.demand_wait_us +=
      std::chrono::duration_cast<std::chrono::microseconds>(now - *job.demand_since).count();
  job.demand_since.reset();
}

// No further chunk of it is begun.
void LoadQueue::give_up(int slot) {
  Job& job = jobs_[slot];
  if (!job.is_listed) return;
  unlist(slot);
  counters_.queued_bytes[index_of(job.priority)] -= job.queued_bytes;
  job.queued_bytes = 0;
}

void LoadQueue::end(int slot) {
  Job& job = jobs_[slot];
  FetchOutcome outcome = FetchOutcome::kDone;
  if (!job.error.empty()) {
    outcome = FetchOutcome::kFailed;
    ++counters_.num_failed;
  } else if (job.num_in_place < job.num_chunks) {
    outcome = FetchOutcome::kCancelled;
    ++counters_.num_cancelled;
  } else {
    ++counters_.num_done;
  }
  if (job.priority == FetchPriority::kDemand) --num_demands_;
  --num_unfinished_;
  job.state = State::kUnreported;
  ended_.push_back({job.key, slot, outcome, job.read_bytes, std::move(job.error)});
}

}  // namespace augur
