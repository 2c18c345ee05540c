// Threads that live as long as the backend and share out the chunks of one loop at a time.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace augur::cpu {

/// A fixed set of workers; the thread that calls is worker 0. Between loops a worker spins a
/// little, so that the next loop of a decode step starts within a microsecond, then sleeps.
///
/// A loop ends when its chunks are done, not when every worker has looked in: one that is asleep,
/// or whose core is busy with something else, holds nobody up.
/// Threading: one caller at a time. Tasks do not throw and do not call parallel_for.
class WorkerPool {
 public:
  /// num_threads >= 1, the caller included. Pinning binds worker i to the i-th allowed core.
  explicit WorkerPool(int num_threads, bool pin_threads = false);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  /// Calls task(chunk_idx, worker_idx) once for each chunk in [0, num_chunks) and returns when
  /// all are done. Chunks are taken in rising order by whichever worker is free, so their cost
  /// may differ; what a chunk computes must not depend on the worker.
  template <typename Task>
  void parallel_for(int64_t num_chunks, Task&& task) {
    using Callable = std::remove_reference_t<Task>;
    run(
        num_chunks,
        [](void* context, int64_t chunk_idx, int worker_idx) {
          (*static_cast<Callable*>(context))(chunk_idx, worker_idx);
        },
        const_cast<void*>(static_cast<const void*>(&task)));
  }

 private:
  using Function = void (*)(void* context, int64_t chunk_idx, int worker_idx);

  void run(int64_t num_chunks, Function function, void* context);
  void work(int worker_idx);
  void take_chunks(uint32_t epoch, int worker_idx);

  // The loop under way: written while no chunk can be taken, read by whoever has taken one.
  Function function_ = nullptr;
  void* context_ = nullptr;
  int64_t num_chunks_ = 0;
  alignas(64) std::atomic<uint64_t> chunks_left_{0};  // epoch << 32 | chunks nobody has taken
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<int64_t> num_done_{0};
  alignas(64) std::atomic<int32_t> num_sleeping_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace augur::cpu
