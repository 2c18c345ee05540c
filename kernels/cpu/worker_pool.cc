#include "kernels/cpu/worker_pool.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <string>

#include "kernels/require.h"

namespace augur::cpu {
namespace {

// About 20 us of spinning: longer than the gap between two operations of a step, shorter than
// what a waiting process should be charged.
constexpr int kSpinsBeforeSleep = 4000;

std::vector<int> allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

void pin(pthread_t thread, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  // Refused in some containers; the pool then runs unpinned, only slower.
  (void)pthread_setaffinity_np(thread, sizeof(set), &set);
}

}  // namespace

WorkerPool::WorkerPool(int num_threads, bool pin_threads) {
  AUGUR_REQUIRE(num_threads >= 1, std::to_string(num_threads));
  const std::vector<int> cores = pin_threads ? allowed_cores() : std::vector<int>();
  for (int worker_idx = 1; worker_idx < num_threads; ++worker_idx) {
    threads_.emplace_back([this, worker_idx] { work(worker_idx); });
    if (static_cast<size_t>(worker_idx) < cores.size()) {
      pin(threads_.back().native_handle(), cores[worker_idx]);
    }
  }
}

WorkerPool::~WorkerPool() {
  stopping_ = true;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::run(int64_t num_chunks, Function function, void* context) {
  if (num_chunks <= 0) return;
  if (threads_.empty() || num_chunks == 1) {
    for (int64_t chunk_idx = 0; chunk_idx < num_chunks; ++chunk_idx) {
      function(context, chunk_idx, 0);
    }
    return;
  }
  AUGUR_REQUIRE(num_chunks < int64_t{1} << 31, std::to_string(num_chunks));
  const uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  function_ = function;
  context_ = context;
  num_chunks_ = num_chunks;
  num_done_.store(0, std::memory_order_relaxed);
  chunks_left_.store(uint64_t{epoch} << 32 | static_cast<uint64_t>(num_chunks),
                     std::memory_order_release);
  epoch_.store(epoch);  // sequentially consistent, against num_sleeping_ below and in work()
  if (num_sleeping_.load() > 0) epoch_.notify_all();
  take_chunks(epoch, 0);
  // The rest is under way elsewhere. Where a worker's core was taken from it, give up this one too.
  for (int spins = 0; num_done_.load(std::memory_order_acquire) != num_chunks; ++spins) {
    if (spins < kSpinsBeforeSleep) {
      _mm_pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void WorkerPool::take_chunks(uint32_t epoch, int worker_idx) {
  uint64_t left = chunks_left_.load(std::memory_order_relaxed);
  // Only the epoch and the count together say that a chunk may be taken: a worker that comes late
  // finds no chunk left of its epoch, or another epoch, and touches nothing else.
  while (left >> 32 == epoch && static_cast<uint32_t>(left) > 0) {
    if (!chunks_left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel,
                                            std::memory_order_relaxed)) {
      continue;
    }
    // With a chunk in hand the loop cannot end, so what describes it stays.
    function_(context_, num_chunks_ - static_cast<uint32_t>(left), worker_idx);
    num_done_.fetch_add(1, std::memory_order_release);
    left = chunks_left_.load(std::memory_order_relaxed);
  }
}

void WorkerPool::work(int worker_idx) {
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (epoch_.load(std::memory_order_acquire) == seen) {
      if (++spins < kSpinsBeforeSleep) {
        _mm_pause();
        continue;
      }
      num_sleeping_.fetch_add(1);
      epoch_.wait(seen);
      num_sleeping_.fetch_sub(1);
      spins = 0;
    }
    seen = epoch_.load(std::memory_order_acquire);
    if (stopping_) return;
    take_chunks(seen, worker_idx);
  }
}

}  // namespace augur::cpu
