#include "prefetch/loader.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/require.h"

namespace augur {
namespace {

const LoaderOptions& checked(const LoaderOptions& options) {
  AUGUR_REQUIRE(
      options.num_workers >= 1 && options.num_reads >= 1 && options.max_prefetch_reads >= 1 &&
          options.max_chunk_bytes >= kDirectAlignment,
      fmt::format("{} workers, {} and {} reads of {} bytes", options.num_workers, options.num_reads,
                  options.max_prefetch_reads, options.max_chunk_bytes));
  return options;
}

bool has_checksums(const ExpertStore& store) {
  for (int layer = 0; layer < store.num_layers(); ++layer) {
    if (store.num_experts(layer) > 0) return store.checksum({layer, 0}).has_value();
  }
  return false;
}

}  // namespace

Loader::Loader(const ExpertStore& store,
               const Ops& ops,
               const SlotMemory& slots,
               const LoaderOptions& options)
    : shared_(store, ops, slots, checked(options).max_chunk_bytes, options.max_prefetch_reads) {
  AUGUR_REQUIRE(slots.base != nullptr && slots.stride_bytes >= store.layout().block_bytes,
                fmt::format("slots of {} bytes", slots.stride_bytes));
  reported_.reserve(static_cast<size_t>(slots.num_slots));
  if (options.direct_io) {
    for (const File& file : store.files()) shared_.direct_files.emplace_back(file);
  }
  if (options.verify && has_checksums(store)) {
    shared_.checksums = std::vector<StreamChecksum>(static_cast<size_t>(slots.num_slots));
  }
  make_workers(options);
  try {
    for (auto& worker : workers_) threads_.emplace_back([&worker] { worker->run(); });
  } catch (...) {  // the system has no more threads: end those there are
    {
      const std::lock_guard lock(shared_.mutex);
      shared_.stops = true;
    }
    shared_.work_came.notify_all();
    for (std::thread& thread : threads_) thread.join();
    throw;
  }
}

void Loader::make_workers(const LoaderOptions& options) {
  const auto make_reader = [&] {
    return options.make_reader ? options.make_reader(options.num_reads)
                               : make_block_reader(options.method, options.num_reads);
  };
  std::string reader_name;
  for (int i = 0; i < options.num_workers; ++i) {
    std::unique_ptr<BlockReader> reader = make_reader();
    reader_name = reader->name();
    workers_.push_back(std::make_unique<LoadWorker>(shared_, i, std::move(reader),
                                                    options.num_reads, options.direct_io));
  }
  const auto num_direct = std::count_if(shared_.direct_files.begin(), shared_.direct_files.end(),
                                        [](const DirectFile& file) { return file.is_open(); });
  const bool is_all_direct = num_direct > 0 && num_direct == std::ssize(shared_.store.files());
  description_ =
      fmt::format("{} worker{}, {} reads of {:.1f} MiB each, {}, {}", options.num_workers,
                  options.num_workers == 1 ? "" : "s", options.num_reads,
                  static_cast<double>(shared_.largest_chunk_bytes) / (1 << 20), reader_name,
                  is_all_direct    ? "direct I/O"
                  : num_direct > 0 ? "direct I/O for some files"
                                   : "through the page cache");
}

Loader::~Loader() {
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.queue.cancel_all();
    shared_.stops = true;
  }
  shared_.work_came.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Loader::start(ExpertKey key, int slot, FetchPriority priority) {
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.queue.start(key, slot, priority, LoadQueue::Clock::now());
  }
  wake_workers(priority == FetchPriority::kDemand);
}

void Loader::raise(int slot, FetchPriority priority) {
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.queue.raise(slot, priority, LoadQueue::Clock::now());
  }
  wake_workers(priority == FetchPriority::kDemand);
}

// Demand does not wait for the reads of prefetch to end: all look for it at once.
void Loader::wake_workers(bool is_demand) {
  shared_.work_came.notify_all();
  if (!is_demand) return;
  for (auto& worker : workers_) worker->wake();
}

void Loader::cancel(int slot) {
  {
    const std::lock_guard lock(shared_.mutex);
    shared_.queue.cancel(slot);
  }
  shared_.work_came.notify_all();
}

std::span<const FetchEnd> Loader::take_ended(bool wait) {
  std::unique_lock lock(shared_.mutex);
  if (wait) {
    AUGUR_REQUIRE(shared_.queue.has_ended() || shared_.queue.has_unfinished(),
                  "a fetch to wait for");
    shared_.fetch_ended.wait(lock, [&] { return shared_.queue.has_ended(); });
  }
  shared_.queue.take_ended(reported_);
  return reported_;
}

LoaderCounters Loader::counters() const {
  const std::lock_guard lock(shared_.mutex);
  return shared_.queue.counters();
}

}  // namespace augur
