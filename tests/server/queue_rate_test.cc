#include "engine/server/queue_rate.h"

#include <gtest/gtest.h>

namespace augur::server {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class QueueRateTest : public ::testing::Test {
 protected:
  /// `per_second` requests of 10 tokens leave each second, for a minute.
  void run_at(int per_second) {
    rate_.on_filled(now_);
    for (int i = 0; i < 60 * per_second; ++i) {
      now_ += milliseconds(1000) / per_second;
      rate_.on_started(1, 10, now_);
    }
  }

  QueueRate rate_;
  QueueRate::Time now_{seconds(1000)};
};

TEST_F(QueueRateTest, WaitsAsLongAsTheRequestsAheadTake) {
  run_at(4);
  EXPECT_NEAR(rate_.retry_after_s(40, 0, now_), 10, 1);
  EXPECT_NEAR(rate_.retry_after_s(100, 0, now_), 25, 2);
}

TEST_F(QueueRateTest, TheScarcerOfRequestsAndTokensDecides) {
  run_at(4);
  EXPECT_NEAR(rate_.retry_after_s(4, 800, now_), 20, 2);
  EXPECT_NEAR(rate_.retry_after_s(80, 10, now_), 20, 2);
}

TEST_F(QueueRateTest, StaysWithinItsBounds) {
  run_at(4);
  EXPECT_EQ(rate_.retry_after_s(-5, -5, now_), QueueRate::kMinRetryS);
  EXPECT_EQ(rate_.retry_after_s(1, 0, now_), QueueRate::kMinRetryS);
  EXPECT_EQ(rate_.retry_after_s(1'000'000, 0, now_), QueueRate::kMaxRetryS);
}

TEST_F(QueueRateTest, BeforeAnythingLeftItIsAsLongAsTheQueueHasStood) {
  rate_.on_filled(now_);
  EXPECT_EQ(rate_.retry_after_s(1, 1, now_), QueueRate::kMinRetryS);
  EXPECT_NEAR(rate_.retry_after_s(1, 1, now_ + seconds(8)), 6, 2);
}

TEST_F(QueueRateTest, AnEmptyQueueIsNotASlowOne) {
  run_at(4);
  now_ += seconds(3600);
  rate_.on_filled(now_);
  EXPECT_NEAR(rate_.retry_after_s(40, 0, now_ + milliseconds(1)), 10, 1);
}

TEST_F(QueueRateTest, AQueueThatHasStoppedGetsSlower) {
  run_at(4);
  const int before = rate_.retry_after_s(20, 0, now_);
  EXPECT_GT(rate_.retry_after_s(20, 0, now_ + seconds(15)), 2 * before);
}

TEST_F(QueueRateTest, FollowsAChange) {
  run_at(1);
  run_at(20);
  EXPECT_NEAR(rate_.retry_after_s(200, 0, now_), 10, 2);
}

}  // namespace
}  // namespace augur::server
