// Brings experts from files into the slots of a pool while the model runs.
//
// Worker threads take chunks (1 MiB of what is stored) from one queue by priority; load_queue.h has
// its rules, load_worker.h how chunks are read and put in place. A fetch that fails ends as kFailed
// with path, offset, reason and expert, and nothing is tried again on its own; others go on.
// Threading: as ExpertFetcher, one thread calls; counters() and has_demand() may be called by any.
// After construction nothing is allocated but the text of an error.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/expert_fetcher.h"
#include "kernels/ops.h"
#include "prefetch/block_reader.h"
#include "prefetch/expert_store.h"
#include "prefetch/load_queue.h"
#include "prefetch/load_worker.h"

namespace augur {

struct LoaderOptions {
  int num_workers = 2;
  int64_t max_chunk_bytes = int64_t{1} << 20;  // at least 4096
  int num_reads = 4;           // that one worker has under way or is putting in place
  int max_prefetch_reads = 2;  // under way in the device for anything but demand, of all workers
  ReadMethod method = ReadMethod::kAuto;
  bool direct_io = true;  // past the page cache where the file system can; otherwise through it
  bool verify = true;     // checksums of packed files
  /// Makes the reader of each worker in place of make_block_reader(method, max_reads): for tests
  /// that delay reads or let them fail. Empty: none.
  std::function<std::unique_ptr<BlockReader>(int max_reads)> make_reader;
};

class Loader final : public ExpertFetcher {
 public:
  /// Allocates staging memory, num_workers * num_reads * max_chunk_bytes and a little, and starts
  /// the workers. Store, ops and slots outlive the loader; `ops` packs for the slots' backend.
  /// Slots were zeroed when they were allocated; at multiples of 4096 bytes packed files are read
  /// straight into them. Throws ConfigError when options.method is refused. Requires options
  /// within what they say, and slots that hold the store's blocks.
  Loader(const ExpertStore& store,
         const Ops& ops,
         const SlotMemory& slots,
         const LoaderOptions& options);
  /// Gives up what is under way; waits for reads that the device has.
  ~Loader() override;
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  /// Requires an expert of the store. One expert for two slots is two fetches.
  void start(ExpertKey key, int slot, FetchPriority priority) override;
  void raise(int slot, FetchPriority priority) override;
  void cancel(int slot) override;
  std::span<const FetchEnd> take_ended(bool wait) override;

  /// Whether a fetch of priority kDemand is queued or being read: one relaxed load.
  bool has_demand() const { return shared_.queue.num_demands() > 0; }
  LoaderCounters counters() const;
  /// "2 workers, 4 reads of 1.0 MiB each, io_uring, direct I/O": what it came to on this machine.
  const std::string& description() const { return description_; }

 private:
  void make_workers(const LoaderOptions& options);
  void wake_workers(bool is_demand);

  mutable LoadShared shared_;
  std::string description_;
  std::vector<std::unique_ptr<LoadWorker>> workers_;
  std::vector<FetchEnd> reported_;
  std::vector<std::thread> threads_;
};

}  // namespace augur
