#include "tools/score/work_queue.h"

#include <gtest/gtest.h>

#include <thread>

namespace augur::score {
namespace {

std::vector<WorkItem> window(std::initializer_list<int64_t> sequences) {
  std::vector<WorkItem> items;
  for (const int64_t sequence : sequences)
    items.push_back({.sequence = sequence, .content = LineProblem{}});
  return items;
}

TEST(WorkQueue, GivesItemsInOrderAndThenTheEnd) {
  WorkQueue queue(1000);
  ASSERT_TRUE(queue.push(window({1, 2})));
  queue.end();
  WorkItem item;
  EXPECT_EQ(queue.pop(item, /*wait=*/false), WorkQueue::Pop::kItem);
  EXPECT_EQ(item.sequence, 1);
  EXPECT_EQ(queue.pop(item, /*wait=*/true), WorkQueue::Pop::kItem);
  EXPECT_EQ(queue.pop(item, /*wait=*/true), WorkQueue::Pop::kEnd);
}

TEST(WorkQueue, IsEmptyUntilTheEndIsKnown) {
  WorkQueue queue(1000);
  WorkItem item;
  EXPECT_EQ(queue.pop(item, /*wait=*/false), WorkQueue::Pop::kEmpty);
}

TEST(WorkQueue, PassesOnWhyTheReaderStopped) {
  WorkQueue queue(1000);
  queue.push(window({1}));
  queue.end(std::make_exception_ptr(std::runtime_error("torn")));
  WorkItem item;
  EXPECT_EQ(queue.pop(item, false), WorkQueue::Pop::kItem);
  EXPECT_THROW(queue.pop(item, false), std::runtime_error);
}

TEST(WorkQueue, TheReaderWaitsForRoomUntilRowsAreWritten) {
  WorkQueue queue(/*max_weight=*/64);  // two items of 32
  ASSERT_TRUE(queue.push(window({1, 2})));
  std::atomic<bool> is_in = false;
  std::thread reader([&] {
    queue.push(window({3}));
    is_in = true;
  });
  WorkItem item;
  queue.pop(item, false);
  queue.pop(item, false);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(is_in);  // popped, but not written
  queue.release(item.weight());
  reader.join();
  EXPECT_TRUE(is_in);
}

TEST(WorkQueue, AWindowLargerThanTheBoundGoesInAlone) {
  WorkQueue queue(/*max_weight=*/1);
  EXPECT_TRUE(queue.push(window({1, 2})));
}

TEST(WorkQueue, ClosingSendsTheReaderHome) {
  WorkQueue queue(/*max_weight=*/32);
  queue.push(window({1}));
  std::thread reader([&] { EXPECT_FALSE(queue.push(window({2}))); });
  queue.close();
  reader.join();
  EXPECT_TRUE(queue.is_closed());
}

}  // namespace
}  // namespace augur::score
