#include "engine/schedule/waiting_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace augur {
namespace {

class WaitingQueueTest : public ::testing::Test {
 protected:
  ActiveRequest& submit(const std::string& tenant, int64_t priority = 0) {
    ActiveRequest& active = *requests_.emplace_back(std::make_unique<ActiveRequest>());
    active.request.tenant = tenant;
    queue_->open(active);
    active.sequences.push_back(Sequence{.request = &active,
                                        .priority = priority,
                                        .age = next_age_++,
                                        .stop_matcher = StopMatcher(no_stops_, false)});
    queue_->add(active.sequences[0]);
    return active;
  }
  /// Serves whoever's turn it is, and says whose it was.
  std::string serve(int64_t num_rows) {
    Sequence& sequence = **queue_->turn().begin();
    queue_->erase(sequence);
    queue_->count_prompt(sequence, num_rows);
    return sequence.request->request.tenant;
  }
  std::string serve_all(int64_t num_rows) {
    std::string order;
    while (!queue_->empty()) order += serve(num_rows);
    return order;
  }

  std::optional<WaitingQueue> queue_{std::in_place, /*is_fair=*/true};
  StopStrings no_stops_;
  std::vector<std::unique_ptr<ActiveRequest>> requests_;
  int64_t next_age_ = 0;
};

TEST_F(WaitingQueueTest, TenantsTakeTurnsByWhatTheyWereServed) {
  for (int i = 0; i < 4; ++i) submit("a");
  for (int i = 0; i < 2; ++i) submit("b");
  EXPECT_EQ(serve(10), "a");
  EXPECT_EQ(serve(25), "b");
  EXPECT_EQ(serve(10), "a");
  EXPECT_EQ(serve(10), "a");
  EXPECT_EQ(serve(1), "b");
  EXPECT_EQ(serve(1), "a");
}

TEST_F(WaitingQueueTest, WithoutFairQueueingAllAreOneTenant) {
  queue_.emplace(/*is_fair=*/false);
  for (const char* tenant : {"a", "a", "b", "a", "c"}) submit(tenant);
  EXPECT_EQ(serve_all(10), "aabac");
  EXPECT_EQ(queue_->num_tenants(), 1);
}

TEST_F(WaitingQueueTest, AnOutputTokenCountsTwice) {
  ActiveRequest& a = submit("a");
  submit("a");
  submit("b");
  submit("b");
  EXPECT_EQ(serve(10), "a");
  EXPECT_EQ(serve(15), "b");
  queue_->count_output(a);
  queue_->count_output(a);
  EXPECT_EQ(serve(1), "a");  // 14 against 15
  ActiveRequest& again = submit("a");
  queue_->count_output(again);
  EXPECT_EQ(serve(1), "b");  // 17 against 15
}

TEST_F(WaitingQueueTest, WhoComesBackEarnedNoCreditWhileAway) {
  submit("idle");
  EXPECT_EQ(serve(1), "idle");
  for (int i = 0; i < 8; ++i) submit("busy");
  for (int i = 0; i < 4; ++i) EXPECT_EQ(serve(100), "busy");
  for (int i = 0; i < 3; ++i) submit("idle");
  // Lifted to the 400 of the other, they take turns from there on.
  EXPECT_EQ(serve_all(100), "idlebusyidlebusyidlebusybusy");
}

TEST_F(WaitingQueueTest, WhoComesWhileNobodyWaitsIsLiftedToTheLastThatDid) {
  submit("busy");
  EXPECT_EQ(serve(500), "busy");
  submit("new");
  EXPECT_EQ(serve(100), "new");
  submit("new");
  submit("busy");
  EXPECT_EQ(serve(1), "busy") << "500 against 600";
}

TEST_F(WaitingQueueTest, WhoWasServedMoreIsNotForgiven) {
  ActiveRequest& first = submit("a");
  submit("b");
  submit("b");
  EXPECT_EQ(serve(100), "a");
  queue_->close(first);
  EXPECT_EQ(serve(10), "b");
  submit("a");
  EXPECT_EQ(serve(10), "b");
  EXPECT_EQ(serve(10), "a");
}

TEST_F(WaitingQueueTest, APutBackSequenceIsWhereItWas) {
  Sequence& first = submit("a").sequences[0];
  submit("a");
  submit("b");
  serve(50);  // the first of a
  queue_->put_back(first);
  EXPECT_EQ(queue_->size(), 3);
  EXPECT_EQ(serve(1), "b");
  EXPECT_EQ(*queue_->turn().begin(), &first);
}

TEST_F(WaitingQueueTest, WithinATenantPriorityThenAgeDecides) {
  submit("a", 2);
  ActiveRequest& second = submit("a", 1);
  ActiveRequest& third = submit("a", 1);
  EXPECT_EQ(*queue_->turn().begin(), &second.sequences[0]);
  serve(1);
  EXPECT_EQ(*queue_->turn().begin(), &third.sequences[0]);
}

TEST_F(WaitingQueueTest, ForgetsTenantsThatAreGone) {
  const int64_t most = static_cast<int64_t>(WaitingQueue::kMaxIdleTenants);
  submit("waits");
  for (int i = 0; i < 3 * most; ++i) {
    ActiveRequest& active = submit("tenant " + std::to_string(i));
    queue_->erase(active.sequences[0]);
    queue_->count_prompt(active.sequences[0], 1 + i);
    queue_->close(active);
    ASSERT_LE(queue_->num_tenants(), most + 1);
  }
  // Those who were served most are still known.
  const std::string last = "tenant " + std::to_string(3 * most - 1);
  submit(last);
  EXPECT_EQ(serve(1), "waits");
  EXPECT_EQ(serve(1), last);
  // Nobody is remembered for nothing.
  queue_.emplace(/*is_fair=*/true);
  for (int i = 0; i < 100; ++i) {
    ActiveRequest& active = submit(std::to_string(i));
    queue_->erase(active.sequences[0]);
    queue_->close(active);
  }
  EXPECT_EQ(queue_->num_tenants(), 0);
}

TEST_F(WaitingQueueTest, RefusesToTakeOutWhoDoesNotWait) {
  ActiveRequest& active = submit("a");
  queue_->erase(active.sequences[0]);
  EXPECT_THROW(queue_->erase(active.sequences[0]), std::logic_error);
  EXPECT_THROW(queue_->turn(), std::logic_error);
}

}  // namespace
}  // namespace augur
