#include "prefetch/load_queue.h"

#include <gtest/gtest.h>

#include "tests/prefetch/expert_files.h"

namespace augur {
namespace {

using enum FetchPriority;

constexpr int64_t kChunkBytes = 4096;
constexpr int kNumSlots = 8;
constexpr int kMaxPrefetchReads = 3;

class LoadQueueTest : public ::testing::Test {
 protected:
  void start(int expert, int slot, FetchPriority priority) {
    queue_.start({1, expert}, slot, priority, now_);
  }
  // The slot whose chunk worker gets, or -1.
  int take(int worker = 0) {
    const std::optional<LoadTask> task = queue_.take(worker, now_);
    if (!task) return -1;
    begun_.push_back(*task);
    return task->slot;
  }
  // Ends the oldest task of a slot.
  void finish(int slot, std::string error = "") {
    for (auto task = begun_.begin(); task != begun_.end(); ++task) {
      if (task->slot != slot) continue;
      queue_.on_read(*task, task->chunk.num_bytes);
      const bool is_wanted = queue_.is_wanted(*task);
      queue_.finish(*task, is_wanted && error.empty(), error);
      begun_.erase(task);
      return;
    }
    FAIL() << "no task of slot " << slot;
  }
  void load_all(int slot) {
    while (true) {
      const int taken = take();
      if (taken < 0) return;
      ASSERT_EQ(taken, slot);
      finish(slot);
    }
  }
  void load_all_in_order(const std::vector<int>& slots) {
    for (const int slot : slots) {
      for (int i = 0; i < num_chunks_; ++i) {
        ASSERT_EQ(take(), slot);
        finish(slot);
      }
    }
    EXPECT_EQ(take(), -1);
  }
  std::vector<FetchEnd> take_ended() {
    std::vector<FetchEnd> ended;
    queue_.take_ended(ended);
    return ended;
  }

  ExpertFiles experts_{96, 40};
  LoadQueue queue_{*experts_.store, kChunkBytes, kNumSlots, kMaxPrefetchReads};
  const int num_chunks_ = experts_.store->num_chunks({1, 0}, kChunkBytes);
  LoadQueue::Clock::time_point now_;
  std::vector<LoadTask> begun_;
};

TEST_F(LoadQueueTest, TheChunksOfAFetchAreTheWholeExpertOnce) {
  ASSERT_GE(num_chunks_, 4);
  start(0, 5, kNextLayer);
  int64_t num_bytes = 0;
  for (int i = 0; i < num_chunks_; ++i) {
    const std::optional<LoadTask> task = queue_.take(0, now_);
    ASSERT_TRUE(task);
    EXPECT_EQ(task->chunk_idx, i);
    EXPECT_EQ(task->is_last, i == num_chunks_ - 1);
    num_bytes += task->chunk.num_bytes;
    queue_.on_read(*task, task->chunk.num_bytes);
    queue_.finish(*task, true, "");
  }
  EXPECT_EQ(take(), -1);
  EXPECT_EQ(num_bytes, experts_.store->stored_bytes({1, 0}));
  const std::vector<FetchEnd> ended = take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].slot, 5);
  EXPECT_EQ(ended[0].outcome, FetchOutcome::kDone);
  EXPECT_EQ(ended[0].read_bytes, num_bytes);
  EXPECT_EQ(queue_.counters().read_bytes[1], num_bytes);
}

TEST_F(LoadQueueTest, TakesByPriorityThenByArrival) {
  start(0, 0, kBackground);
  start(1, 1, kLaterLayers);
  start(2, 2, kNextLayer);
  start(3, 3, kNextLayer);
  start(4, 4, kDemand);
  load_all_in_order({4, 2, 3, 1, 0});
}

TEST_F(LoadQueueTest, DemandOvertakesBetweenTwoChunksAndTheOtherGoesOnWhereItWas) {
  start(0, 0, kLaterLayers);
  ASSERT_EQ(take(), 0);
  start(1, 1, kDemand);
  EXPECT_EQ(take(), 1);
  finish(0);
  for (int i = 1; i < num_chunks_; ++i) EXPECT_EQ(take(), 1);
  EXPECT_EQ(take(), -1) << "prefetch while demand is read";
  for (int i = 0; i < num_chunks_; ++i) finish(1);
  EXPECT_EQ(take(), 0);
  EXPECT_EQ(begun_.back().chunk_idx, 1);
}

TEST_F(LoadQueueTest, KeepsFewReadsOfPrefetchUnderWay) {
  start(0, 0, kNextLayer);
  for (int i = 0; i < kMaxPrefetchReads; ++i) EXPECT_EQ(take(), 0);
  EXPECT_EQ(take(), -1);
  finish(0);
  EXPECT_EQ(take(), 0);
  EXPECT_EQ(take(), -1);
  start(1, 1, kDemand);
  EXPECT_EQ(take(), 1) << "demand is not bound by it";
}

TEST_F(LoadQueueTest, OneWorkerAtATimeHasAFetch) {
  start(0, 0, kDemand);
  start(1, 1, kDemand);
  EXPECT_EQ(take(0), 0);
  EXPECT_EQ(take(1), 1);
  EXPECT_EQ(take(1), 1);
  finish(0);
  EXPECT_EQ(take(2), 0) << "given back with its progress";
  EXPECT_EQ(begun_.back().chunk_idx, 1);
}

TEST_F(LoadQueueTest, RaisingMovesAFetchBehindThoseOfItsNewPriority) {
  start(0, 0, kBackground);
  start(1, 1, kLaterLayers);
  start(2, 2, kNextLayer);
  queue_.raise(0, kNextLayer, now_);
  queue_.raise(2, kBackground, now_);  // less urgent than it is: nothing
  load_all_in_order({2, 0, 1});
}

TEST_F(LoadQueueTest, RaisingOfAFetchThatEndedIsNothing) {
  start(0, 0, kBackground);
  load_all(0);
  queue_.raise(0, kDemand, now_);
  queue_.cancel(0);
  EXPECT_EQ(take_ended().size(), 1u);
  queue_.raise(0, kDemand, now_);
  EXPECT_EQ(queue_.num_demands(), 0);
}

TEST_F(LoadQueueTest, ACancelledFetchThatDidNotBeginEndsAtOnce) {
  start(0, 0, kNextLayer);
  start(1, 1, kNextLayer);
  queue_.cancel(0);
  const std::vector<FetchEnd> ended = take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].outcome, FetchOutcome::kCancelled);
  EXPECT_EQ(ended[0].read_bytes, 0);
  load_all(1);
}

TEST_F(LoadQueueTest, ACancelledFetchEndsWithItsLastRead) {
  start(0, 0, kDemand);
  take();
  take();
  queue_.cancel(0);
  EXPECT_EQ(take(), -1);
  EXPECT_FALSE(queue_.is_wanted(begun_[0]));
  finish(0);
  EXPECT_FALSE(queue_.has_ended());
  finish(0);
  const std::vector<FetchEnd> ended = take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].outcome, FetchOutcome::kCancelled);
  EXPECT_GT(ended[0].read_bytes, 0);
  EXPECT_EQ(queue_.num_demands(), 0);
  EXPECT_EQ(queue_.counters().num_cancelled, 1);
}

TEST_F(LoadQueueTest, AFetchThatIsAllButReadIsDoneThoughCancelled) {
  start(0, 0, kDemand);
  for (int i = 0; i < num_chunks_; ++i) take();
  queue_.cancel(0);
  for (int i = 0; i < num_chunks_; ++i) finish(0);
  EXPECT_EQ(take_ended()[0].outcome, FetchOutcome::kDone);
}

TEST_F(LoadQueueTest, AFailedFetchEndsWithItsFirstErrorAndItsLastRead) {
  start(0, 0, kDemand);
  start(1, 1, kDemand);
  take();
  take();
  finish(0, "the first");
  EXPECT_EQ(take(), 1) << "no more of the failed";
  EXPECT_FALSE(queue_.has_ended());
  finish(0, "the second");
  const std::vector<FetchEnd> ended = take_ended();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].outcome, FetchOutcome::kFailed);
  EXPECT_EQ(ended[0].error, "the first");
}

TEST_F(LoadQueueTest, AccountsQueuedBytesToThePriority) {
  const int64_t expert_bytes = experts_.store->stored_bytes({1, 0});
  const auto& queued = queue_.counters().queued_bytes;
  start(0, 0, kBackground);
  start(1, 1, kLaterLayers);
  EXPECT_EQ(queued[3], expert_bytes);
  EXPECT_EQ(queued[2], expert_bytes);
  queue_.raise(0, kNextLayer, now_);
  EXPECT_EQ(queued[3], 0);
  EXPECT_EQ(queued[1], expert_bytes);
  take();
  EXPECT_EQ(queued[1], expert_bytes - begun_[0].chunk.num_bytes);
  queue_.cancel(0);
  queue_.cancel(1);
  EXPECT_EQ(queued, (std::array<int64_t, kNumFetchPriorities>{}));
}

TEST_F(LoadQueueTest, CountsHowLongDemandWaited) {
  start(0, 0, kDemand);
  now_ += std::chrono::microseconds(300);
  take();
  now_ += std::chrono::microseconds(5000);
  take();
  start(1, 1, kBackground);
  now_ += std::chrono::microseconds(5000);
  queue_.raise(1, kDemand, now_);
  while (begun_.size() < static_cast<size_t>(num_chunks_)) take();
  now_ += std::chrono::microseconds(40);
  ASSERT_EQ(take(), 1);
  EXPECT_EQ(queue_.counters().num_demand_waits, 2);
  EXPECT_EQ(queue_.counters().demand_wait_us, 340);
}

TEST_F(LoadQueueTest, RequiresASlotThatIsFreeAndReported) {
  start(0, 0, kDemand);
  EXPECT_THROW(start(1, 0, kDemand), std::logic_error);
  load_all(0);
  EXPECT_THROW(start(1, 0, kDemand), std::logic_error) << "not reported yet";
  take_ended();
  start(1, 0, kDemand);
  EXPECT_THROW(start(2, kNumSlots, kDemand), std::logic_error);
  EXPECT_THROW(start(ExpertFiles::kNumExperts, 1, kDemand), std::logic_error);
  EXPECT_EQ(queue_.num_demands(), 1);
}

TEST_F(LoadQueueTest, TheSameExpertMayGoIntoTwoSlots) {
  start(0, 0, kDemand);
  start(0, 1, kDemand);
  load_all_in_order({0, 1});
}

}  // namespace
}  // namespace augur
