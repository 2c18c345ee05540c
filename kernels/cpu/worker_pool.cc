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
    for (int64_t chunk_idx = 0; chunk_idx < num_chunks; ++chunk_idx)
      function(context, chunk_idx, 0);
    return;
  }
  AUGUR_REQUIRE(num_chunks <= UINT32_MAX, std::to_string(num_chunks));
  function_ = function;
  context_ = context;
  num_chunks_ = num_chunks;
  num_done_.store(0, std::memory_order_relaxed);
  const uint64_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  ticket_.store(epoch << 32 | static_cast<uint64_t>(num_chunks), std::memory_order_release);
  epoch_.fetch_add(1);  // sequentially consistent, against num_sleeping_ below and in work()
  if (num_sleeping_.load() > 0) epoch_.notify_all();
  take_chunks(0);
  for (int spins = 0; num_done_.load(std::memory_order_acquire) != num_chunks;) {
    if (++spins < kSpinsBeforeSleep) {
      _mm_pause();
    } else {
      std::this_thread::yield();  // a worker may be waiting for this very core
    }
  }
}

void WorkerPool::take_chunks(int worker_idx) {
  int64_t num_done = 0;
  uint64_t ticket = ticket_.load(std::memory_order_relaxed);
  while (static_cast<uint32_t>(ticket) != 0) {
    // Acquires what run() wrote before the ticket, also through other workers' exchanges.
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acquire,
                                       std::memory_order_relaxed)) {
      continue;
    }
    function_(context_, num_chunks_ - static_cast<uint32_t>(ticket), worker_idx);
    ++num_done;
    ticket = ticket_.load(std::memory_order_relaxed);
  }
  if (num_done > 0) num_done_.fetch_add(num_done, std::memory_order_release);
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
    take_chunks(worker_idx);
  }
}

}  // namespace augur::cpu
