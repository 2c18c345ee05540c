#include "prefetch/load_worker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <system_error>
#include <utility>

#include "kernels/cpu/memory.h"

namespace augur {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

int64_t align_down(int64_t value, int64_t alignment) {
  return value / alignment * alignment;
}

int64_t align_up(int64_t value, int64_t alignment) {
  return align_down(value + alignment - 1, alignment);
}

bool is_aligned(const std::byte* address, int64_t alignment) {
  return reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(alignment) == 0;
}

}  // namespace

LoadShared::LoadShared(const ExpertStore& store,
                       const Ops& ops,
                       const SlotMemory& slots,
                       int64_t max_chunk_bytes,
                       int max_prefetch_reads)
    : store(store),
      ops(ops),
      slots(slots),
      largest_chunk_bytes(store.largest_chunk_bytes(max_chunk_bytes)),
      queue(store, max_chunk_bytes, slots.num_slots, max_prefetch_reads) {}

LoadWorker::LoadWorker(LoadShared& shared,
                       int idx,
                       std::unique_ptr<BlockReader> reader,
                       int num_reads,
                       bool uses_direct_io)
    : shared_(shared),
      idx_(idx),
      alignment_(uses_direct_io ? kDirectAlignment : 1),
      reader_(std::move(reader)),
      reads_(static_cast<size_t>(num_reads)) {
  // A chunk may begin and end within an aligned piece.
  const int64_t read_bytes =
      align_up(shared.largest_chunk_bytes + 2 * (kDirectAlignment - 1), kDirectAlignment);
  // Whole huge pages: a direct read of 1 MiB into pages of 4 KiB takes twice as long on some
  // devices, which see a request of 256 pieces.
  staging_ = cpu::allocate_host(align_up(num_reads * read_bytes, kHugePageBytes));
  // So that its pages are there before the first read.
  std::memset(staging_.data(), 0, static_cast<size_t>(staging_.num_bytes()));
  for (int i = 0; i < num_reads; ++i) reads_[i].staging = staging_.data() + i * read_bytes;
  rows_.resize(static_cast<size_t>(shared.largest_chunk_bytes) / sizeof(Bf16) + 1);
}

void LoadWorker::run() {
  while (true) {
    begin_reads();
    if (num_busy_ == 0) {
      if (!wait_for_work()) return;
      continue;
    }
    collect(/*blocks=*/next_ready() == nullptr);
    begin_reads();
    if (Read* ready = next_ready()) put_in_place(*ready);
  }
}

void LoadWorker::begin_reads() {
  for (Read& read : reads_) {
    if (read.is_busy) continue;
    std::optional<LoadTask> task;
    {
      const std::lock_guard lock(shared_.mutex);
      task = shared_.queue.take(idx_, LoadQueue::Clock::now());
    }
    if (!task) return;
    begin(read, *task);
  }
  // No memory for another read: who has some may go on with what is queued.
  const std::lock_guard lock(shared_.mutex);
  if (shared_.num_idle > 0) shared_.work_came.notify_all();
}

void LoadWorker::begin(Read& read, const LoadTask& task) {
  const ExpertChunk& chunk = task.chunk;
  const bool is_direct =
      !shared_.direct_files.empty() && shared_.direct_files[chunk.file_idx].is_open();
  const int64_t alignment = is_direct ? alignment_ : 1;
  const int64_t begin = align_down(chunk.offset, alignment);
  const int64_t end = align_up(chunk.offset + chunk.num_bytes, alignment);
  std::byte* const place = shared_.slots.slot(task.slot) + chunk.block_offset;

  read.task = task;
  read.skip_bytes = chunk.offset - begin;
  read.is_in_slot =
      chunk.is_verbatim() && end - begin == chunk.num_bytes && is_aligned(place, alignment);
  read.data = read.is_in_slot ? place : read.staging;
  read.order = num_begun_++;
  read.is_busy = true;
  read.has_ended = false;
  ++num_busy_;
  const File& file = shared_.store.files()[chunk.file_idx];
  reader_->begin({.descriptor = is_direct ? shared_.direct_files[chunk.file_idx].descriptor()
                                          : file.descriptor(),
                  .path = &file.path(),
                  .offset = begin,
                  .num_bytes = end - begin,
                  .to = read.data,
                  .tag = static_cast<int>(&read - reads_.data())});
}

void LoadWorker::collect(bool blocks) {
  const std::span<const BlockReadEnd> ended = reader_->wait(blocks);
  if (ended.empty()) return;
  const std::lock_guard lock(shared_.mutex);
  for (const BlockReadEnd& end : ended) {
    Read& read = reads_[end.tag];
    read.has_ended = true;
    read.result = end.num_bytes;
    const int64_t of_chunk = end.num_bytes - read.skip_bytes;
    shared_.queue.on_read(read.task, std::clamp<int64_t>(of_chunk, 0, read.task.chunk.num_bytes));
  }
}

// False when it is time to end.
bool LoadWorker::wait_for_work() {
  std::unique_lock lock(shared_.mutex);
  ++shared_.num_idle;
  shared_.work_came.wait(lock, [&] { return shared_.stops || shared_.queue.has_task(idx_); });
  --shared_.num_idle;
  return !shared_.stops;
}

// Of each fetch the first read that is not in place yet is a candidate, where it has ended; of
// those the one of the most urgent fetch. Null when there is none.
LoadWorker::Read* LoadWorker::next_ready() {
  const std::lock_guard lock(shared_.mutex);
  Read* best = nullptr;
  for (Read& read : reads_) {
    if (!read.is_busy || !read.has_ended) continue;
    const bool is_first = std::none_of(reads_.begin(), reads_.end(), [&](const Read& other) {
      return other.is_busy && other.task.slot == read.task.slot && other.order < read.order;
    });
    if (!is_first) continue;
    const auto rank = [&](const Read& r) {
      return std::pair(shared_.queue.priority(r.task.slot), r.order);
    };
    if (best == nullptr || rank(read) < rank(*best)) best = &read;
  }
  return best;
}

void LoadWorker::put_in_place(Read& read) {
  bool is_wanted = false;
  {
    const std::lock_guard lock(shared_.mutex);
    is_wanted = shared_.queue.is_wanted(read.task);
  }
  std::optional<std::string> error;
  if (is_wanted) {
    error = why_unread(read);
    if (!error) error = place(read);
  }
  read.is_busy = false;
  --num_busy_;
  const std::lock_guard lock(shared_.mutex);
  shared_.queue.finish(read.task, is_wanted && !error, error.value_or(std::string()));
  if (shared_.queue.has_ended()) shared_.fetch_ended.notify_one();
  // The end of demand lets others begin, and so does a fetch that went back to the queue.
  if (shared_.num_idle > 0) shared_.work_came.notify_all();
}

// Why the bytes of the chunk did not come; nothing when they did.
std::optional<std::string> LoadWorker::why_unread(const Read& read) const {
  const ExpertChunk& chunk = read.task.chunk;
  const std::string& path = shared_.store.files()[chunk.file_idx].path().string();
  if (read.result < 0) {
    return fmt::format("{}: cannot read {} bytes at offset {}, of {}: {}", path, chunk.num_bytes,
                       chunk.offset, describe(read.task.key),
                       std::generic_category().message(static_cast<int>(-read.result)));
  }
  const int64_t num_bytes = read.result - read.skip_bytes;
  if (num_bytes >= chunk.num_bytes) return {};
  return fmt::format(
      "{}: the read of {} bytes at offset {}, of {}, ended after {}: the file is truncated or was "
      "changed while in use",
      path, chunk.num_bytes, chunk.offset, describe(read.task.key),
      std::max<int64_t>(num_bytes, 0));
}

// Packs or copies the chunk into its slot; says why where that cannot be done.
std::optional<std::string> LoadWorker::place(const Read& read) try {
  const LoadTask& task = read.task;
  const ExpertChunk& chunk = task.chunk;
  const std::byte* const stored = read.data + read.skip_bytes;
  if (!read.is_in_slot) {
    shared_.store.place(chunk, stored, shared_.ops, shared_.slots.slot(task.slot), rows_);
  }
  if (shared_.checksums.empty()) return {};
  StreamChecksum& checksum = shared_.checksums[task.slot];
  if (task.chunk_idx == 0) checksum.reset();
  checksum.add(stored, chunk.num_bytes);
  if (!task.is_last || checksum.value() == *shared_.store.checksum(task.key)) return {};
  return fmt::format(
      "{}: {}, which ends at offset {}, is damaged: checksum {:016x}, {:016x} was "
      "written",
      shared_.store.files()[chunk.file_idx].path().string(), describe(task.key),
      chunk.offset + chunk.num_bytes, checksum.value(), *shared_.store.checksum(task.key));
} catch (const std::exception& error) {
  return fmt::format("{}: {}", describe(read.task.key), error.what());
}

}  // namespace augur
