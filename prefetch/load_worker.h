// A thread of a Loader: keeps reads under way and puts what they bring into slots.
//
// It begins reads as long as there is work and staging memory, then waits for one to end. Of the
// chunks that were read it puts the most urgent fetch's in place first, and begins further reads
// before each, so that the device is busy while the processor packs.
// Chunks that lie in the file as they will in the slot are read straight into it, where their place
// allows direct I/O.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/buffer.h"
#include "prefetch/block_reader.h"
#include "prefetch/direct_file.h"
#include "prefetch/expert_store.h"
#include "prefetch/load_queue.h"
#include "prefetch/stream_checksum.h"

namespace augur {

/// Memory of the slots that experts are read into: slot s lies at base + s * stride_bytes.
struct SlotMemory {
  std::byte* base = nullptr;
  int64_t stride_bytes = 0;  // at least the layout's block_bytes
  int num_slots = 0;

  std::byte* slot(int slot_idx) const { return base + slot_idx * stride_bytes; }
};

/// What the workers of a Loader share.
struct LoadShared {
  LoadShared(const ExpertStore& store,
             const Ops& ops,
             const SlotMemory& slots,
             int64_t max_chunk_bytes,
             int max_prefetch_reads);

  // Constant once the workers run.
  const ExpertStore& store;
  const Ops& ops;
  const SlotMemory slots;
  const int64_t largest_chunk_bytes;
  std::vector<DirectFile> direct_files;  // of store.files(); empty: direct I/O is not wanted
  // By slot, of the one worker that has its fetch; empty: nothing is verified.
  std::vector<StreamChecksum> checksums;

  std::mutex mutex;
  std::condition_variable work_came;
  std::condition_variable fetch_ended;
  // Guarded by mutex.
  LoadQueue queue;
  int num_idle = 0;  // workers that wait for work_came
  bool stops = false;
};

/// Threading: run() on a thread of its own; wake() from any.
class LoadWorker {
 public:
  /// Allocates the staging memory. `shared` outlives the worker. `idx` counts the workers.
  LoadWorker(LoadShared& shared,
             int idx,
             std::unique_ptr<BlockReader> reader,
             int num_reads,
             bool uses_direct_io);

  /// Works until shared.stops and no read is under way.
  void run();
  /// Makes it look for work though it waits for a read.
  void wake() { reader_->wake(); }

 private:
  /// A read under way, or one that ended and is to be put in place.
  struct Read {
    LoadTask task;
    std::byte* staging = nullptr;
    std::byte* data = nullptr;  // where the read goes: staging, or the slot itself
    int64_t skip_bytes = 0;     // read before the chunk, for alignment
    int64_t result = 0;         // of the reader
    int64_t order = 0;          // reads are begun in this order
    bool is_busy = false;
    bool has_ended = false;
    bool is_in_slot = false;
  };

  void begin_reads();
  void begin(Read& read, const LoadTask& task);
  void collect(bool blocks);
  bool wait_for_work();
  Read* next_ready();
  void put_in_place(Read& read);
  std::optional<std::string> why_unread(const Read& read) const;
  std::optional<std::string> place(const Read& read);

  LoadShared& shared_;
  const int idx_;
  const int64_t alignment_;  // of reads; 1 without direct I/O
  std::unique_ptr<BlockReader> reader_;
  Buffer staging_;
  std::vector<Bf16> rows_;  // for converting
  std::vector<Read> reads_;
  int num_busy_ = 0;
  int64_t num_begun_ = 0;
};

}  // namespace augur
