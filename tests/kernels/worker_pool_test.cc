#include "kernels/cpu/worker_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <vector>

namespace augur::cpu {
namespace {

class WorkerPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(WorkerPoolTest, RunsEachChunkOnce) {
  WorkerPool pool(GetParam());
  for (int64_t num_chunks : {0, 1, 2, 7, 1000}) {
    std::vector<std::atomic<int>> counts(num_chunks);
    pool.parallel_for(num_chunks, [&](int64_t chunk_idx, int worker_idx) {
      ASSERT_LT(worker_idx, pool.num_threads());
      ++counts[chunk_idx];
    });
    for (const auto& count : counts) EXPECT_EQ(count, 1);
  }
}

TEST_P(WorkerPoolTest, SeesTheWritesOfTheLoopBefore) {
  WorkerPool pool(GetParam());
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round) {
    pool.parallel_for(64, [&](int64_t chunk_idx, int) {
      values[chunk_idx] = values[(chunk_idx * 37) % 64] * 0 + values[chunk_idx] + 1;
    });
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 64 * 2000);
}

// Loops of different length in close succession: a worker that is late for one must not take a
// chunk of it when the next is being set up.
TEST_P(WorkerPoolTest, KeepsLoopsApartInCloseSuccession) {
  WorkerPool pool(GetParam());
  int64_t expected = 0;
  std::atomic<int64_t> total{0};
  for (int round = 0; round < 20000; ++round) {
    const int64_t num_chunks = 2 + round % 7;
    std::atomic<int> num_calls{0};
    pool.parallel_for(num_chunks, [&](int64_t chunk_idx, int) {
      ++num_calls;
      total += chunk_idx;
    });
    ASSERT_EQ(num_calls, num_chunks);
    expected += num_chunks * (num_chunks - 1) / 2;
  }
  EXPECT_EQ(total, expected);
}

TEST_P(WorkerPoolTest, WakesAfterSleeping) {
  WorkerPool pool(GetParam());
  std::atomic<int> num_calls{0};
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    pool.parallel_for(16, [&](int64_t, int) { ++num_calls; });
  }
  EXPECT_EQ(num_calls, 48);
}

INSTANTIATE_TEST_SUITE_P(Threads, WorkerPoolTest, ::testing::Values(1, 2, 5));

}  // namespace
}  // namespace augur::cpu
