// The scheduler with the prefix cache: what is computed, what is found, and what is kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/schedule/scheduler_fixture.h"

namespace augur {
namespace {

class SharingTest : public test::SchedulerFixture {
 protected:
  /// first, first + 1, ...
  static std::vector<int32_t> count_from(int32_t first, int count) {
    std::vector<int32_t> ids(count);
    std::iota(ids.begin(), ids.end(), first);
    return ids;
  }
  static Request request(std::vector<int32_t> prompt_ids, const std::string& salt = "") {
    Request request{.prompt_ids = std::move(prompt_ids)};
    request.cache_salt = salt;
    return request;
  }
  void run_to_end() {
    int num_steps = 0;
    while (!step().empty()) ASSERT_LT(++num_steps, 10'000);
    scheduler_->flush_prefixes();
    EXPECT_EQ(scheduler_->kv().num_free(), limits_.num_blocks);
  }

  static constexpr ScheduleLimits kRoomy{
      .max_running = 4, .max_rows = 100, .num_blocks = 60, .block_size = 2};
  const ScheduleOptions kCache{.prefix_cache = true};
};

TEST_F(SharingTest, APromptBeginsBehindWhatAnotherLeft) {
  make(kRoomy, kCache);
  add(request(count_from(10, 9)), 1);
  EXPECT_EQ(step(), (Rows{{0, 9}}));
  EXPECT_EQ(scheduler_->kv().num_idle(), 4);
  EXPECT_EQ(scheduler_->kv().num_free(), 56);
  std::vector<int32_t> longer = count_from(10, 6);
  longer.insert(longer.end(), {1, 1, 1});
  ActiveRequest& second = add(request(longer), 1);
  EXPECT_EQ(step(), (Rows{{1, 3}}));
  EXPECT_EQ(second.num_cached_tokens, 6);
  const ScheduleCounters& counters = scheduler_->counters();
  EXPECT_EQ(counters.prefix_query_tokens, 18);
  EXPECT_EQ(counters.prefix_hit_tokens, 6);
  EXPECT_EQ(scheduler_->flush_prefixes(), 5);
  EXPECT_EQ(scheduler_->kv().num_free(), 60);
}

TEST_F(SharingTest, TheLastTokenIsAlwaysComputed) {
  make(kRoomy, kCache);
  add(request(count_from(10, 8)), 1);
  step();
  ActiveRequest& again = add(request(count_from(10, 8)), 1);
  EXPECT_EQ(step(), (Rows{{1, 2}}));  // all but the block of the last token
  EXPECT_EQ(again.num_cached_tokens, 6);
}

TEST_F(SharingTest, AnOutputIsFoundByThePromptThatGoesOn) {
  make(kRoomy, kCache);
  add(request(count_from(10, 3)), 4);  // puts out four times token 2
  while (!step().empty()) continue;
  std::vector<int32_t> ids = count_from(10, 3);
  ids.insert(ids.end(), {2, 2, 2, 2, 7});
  ActiveRequest& next = add(request(ids), 1);
  EXPECT_EQ(step(), (Rows{{1, 2}}));  // of 7 tokens the last was never computed
  EXPECT_EQ(next.num_cached_tokens, 6);
}

TEST_F(SharingTest, SaltsShareNothing) {
  make(kRoomy, kCache);
  add(request(count_from(10, 9), "a"), 1);
  step();
  ActiveRequest& other = add(request(count_from(10, 9), "b"), 1);
  EXPECT_EQ(step(), (Rows{{1, 9}}));
  EXPECT_EQ(other.num_cached_tokens, 0);
  add(request(count_from(10, 9), "a"), 1);
  EXPECT_EQ(step(), (Rows{{2, 1}}));
}

TEST_F(SharingTest, WithoutTheCacheOnlyCompletionsOfOnePromptShare) {
  make(kRoomy);
  add(request(count_from(10, 9)), 1);
  add(request(count_from(10, 9)), 1);
  EXPECT_EQ(step(), (Rows{{0, 9}, {1, 9}}));
  EXPECT_EQ(scheduler_->kv().num_free(), 60);
  ActiveRequest& several = add(request(count_from(10, 9)), 4, /*n=*/2);
  EXPECT_EQ(step(), (Rows{{2, 9}}));
  EXPECT_EQ(step(), (Rows{{2, 1}, {3, 1}}));
  run_to_end();
  EXPECT_EQ(several.num_cached_tokens, 0);
  EXPECT_EQ(scheduler_->counters().prefix_query_tokens, 0);
  EXPECT_EQ(scheduler_->kv().num_free(), 60) << "nothing outlives the request";
}

TEST_F(SharingTest, EqualPromptsThatComeTogetherAreComputedOnce) {
  make(kRoomy, kCache);
  for (int i = 0; i < 3; ++i) add(request(count_from(10, 21)), 2);
  EXPECT_EQ(step(), (Rows{{0, 21}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}, {2, 1}}));
  EXPECT_EQ(scheduler_->counters().prefix_hit_tokens, 40);
}

TEST_F(SharingTest, NobodyWaitsForAPromptThatTakesSeveralSteps) {
  make({.max_running = 4, .max_rows = 10, .num_blocks = 60, .block_size = 2}, kCache);
  for (int i = 0; i < 2; ++i) add(request(count_from(10, 21)), 2);
  EXPECT_EQ(step(), (Rows{{0, 10}}));
  EXPECT_EQ(step(), (Rows{{0, 10}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}})) << "the one row is that of decode";
  EXPECT_EQ(requests_[1]->sequences[0].num_deferrals, 0);
}

TEST_F(SharingTest, AFewCommonTokensAreNoReasonToWait) {
  make(kRoomy, kCache);
  std::vector<int32_t> other = count_from(10, 4);
  other.resize(20, 1);
  add(request(count_from(10, 20)), 2);
  add(request(other), 2);
  EXPECT_EQ(step(), (Rows{{0, 20}, {1, 20}}));
  // What both computed is kept once.
  EXPECT_EQ(requests_[0]->sequences[0].blocks[1], requests_[1]->sequences[0].blocks[1]);
  EXPECT_EQ(scheduler_->kv().num_free(), 60 - 10 - 8);
}

TEST_F(SharingTest, WhoWaitsForAPrefixKeepsItsPlaceAndItsBlocks) {
  make({.max_running = 2, .max_rows = 100, .num_blocks = 60, .block_size = 2}, kCache);
  for (int i = 0; i < 2; ++i) add(request(count_from(10, 21)), 2);
  add(request(count_from(50, 4)), 2);
  EXPECT_EQ(step(), (Rows{{0, 21}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
  EXPECT_EQ(step(), (Rows{{1, 1}, {2, 4}}));

  // 6 blocks each, of which 5 are common, and one more to grow: 8 of 10 are spoken for.
  make({.max_running = 4, .max_rows = 100, .num_blocks = 10, .block_size = 2}, kCache);
  for (int i = 0; i < 2; ++i) add(request(count_from(10, 11)), 3);
  add(request(count_from(50, 5)), 1);  // 3 blocks
  EXPECT_EQ(step(), (Rows{{0, 11}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
}

TEST_F(SharingTest, OthersGoOnWhileSomebodyWaitsForAPrefix) {
  make(kRoomy, kCache);
  for (int i = 0; i < 2; ++i) add(request(count_from(10, 21)), 2);
  add(request(count_from(50, 4)), 2);
  EXPECT_EQ(step(), (Rows{{0, 21}, {2, 4}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {2, 1}, {1, 1}}));
}

TEST_F(SharingTest, NobodyWaitsForPrefixesForEver) {
  make({.max_running = 8, .max_rows = 100, .num_blocks = 400, .block_size = 2}, kCache);
  ActiveRequest* last = nullptr;
  // Each goes on where the one before ends, so that the last could wait for all of them in turn.
  for (int i = 1; i <= 7; ++i) last = &add(request(count_from(10, (4 << i) + 1)), 2);
  add(request(count_from(10, 4 << 7)), 2);
  int num_steps = 0;
  for (; !last->sequences[0].was_admitted; ++num_steps) step();
  EXPECT_LE(last->sequences[0].num_deferrals, Scheduler::kMaxDeferrals);
  EXPECT_LE(num_steps, 2 * Scheduler::kMaxDeferrals);
}

TEST_F(SharingTest, APreemptedSequenceBeginsBehindItsOwnOutput) {
  make({.max_running = 4, .max_rows = 100, .num_blocks = 6, .block_size = 2}, kCache);
  add(request(count_from(10, 4)), 5);
  add(request(count_from(20, 4)), 5);
  ActiveRequest& newer = *requests_[1];
  for (int i = 0; i < 3; ++i) step();
  EXPECT_EQ(step(), (Rows{{0, 1}}));  // its fourth block is taken from the newer one
  EXPECT_EQ(newer.sequences[0].state, Sequence::State::kWaiting);
  EXPECT_EQ(scheduler_->kv().num_evicted(), 1) << "of its three blocks the last";
  EXPECT_EQ(step(), (Rows{{0, 1}}));
  EXPECT_EQ(step(), (Rows{{1, 3}})) << "of 7 tokens two blocks are still there";
  run_to_end();
}

TEST_F(SharingTest, CachedBlocksCountAsFree) {
  make({.max_running = 4, .max_rows = 100, .num_blocks = 6, .block_size = 2}, kCache);
  add(request(count_from(10, 11)), 1);
  step();
  EXPECT_EQ(scheduler_->kv().num_idle(), 5);
  add(request(count_from(50, 7)), 6);  // 4 blocks, and one or two to grow
  EXPECT_EQ(step(), (Rows{{1, 7}}));
  EXPECT_EQ(scheduler_->kv().num_evicted(), 3);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(step(), (Rows{{1, 1}}));
  EXPECT_EQ(scheduler_->kv().num_evicted(), 5);
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
}

TEST_F(SharingTest, WhatIsFoundIsNotGivenUpForTheRest) {
  make({.max_running = 4, .max_rows = 100, .num_blocks = 6, .block_size = 2}, kCache);
  add(request(count_from(10, 7)), 1);  // leaves 3 blocks, the oldest
  step();
  add(request(count_from(50, 5)), 1);  // leaves 2
  step();
  ActiveRequest& goes_on = add(request(count_from(10, 11)), 1);  // 6 blocks: all there are
  EXPECT_EQ(step(), (Rows{{2, 5}}));
  EXPECT_EQ(goes_on.num_cached_tokens, 6);
  EXPECT_EQ(scheduler_->kv().num_evicted(), 2);
}

TEST_F(SharingTest, RowsWhoseLogitsAreNeededAreComputed) {
  make(kRoomy, kCache);
  add(request(count_from(10, 13)), 1);
  step();
  Request scored = request(count_from(10, 13));
  scored.score_prompt = true;
  scored.score_from = 8;  // by the row of position 7
  ActiveRequest& active = add(std::move(scored), 1, /*n=*/2);
  const std::vector<ScheduledRows> plan = scheduler_->plan();
  ASSERT_EQ(plan.size(), 2u);
  EXPECT_EQ(plan[0].first_position, 6);
  EXPECT_EQ(plan[1].first_position, 12) << "the second completion scores nothing";
  EXPECT_EQ(active.num_cached_tokens, 6);
}

TEST_F(SharingTest, TellsOfAdmissionsAndWhereTheyBegin) {
  struct Admission {
    int64_t sequence_id;
    size_t num_prompt;
    int64_t first_position;
    bool operator==(const Admission&) const = default;
  };
  std::vector<Admission> admissions;
  ScheduleOptions options = kCache;
  options.on_admitted = [&](int64_t id, std::span<const int32_t> prompt, int64_t first_position) {
    admissions.push_back({id, prompt.size(), first_position});
  };
  make(kRoomy, options);
  add(request(count_from(10, 9)), 2);
  step();
  add(request(count_from(10, 7)), 2, /*n=*/2);
  run_to_end();
  EXPECT_EQ(admissions, (std::vector<Admission>{{0, 9, 0}, {1, 7, 6}, {2, 7, 6}}));
}

}  // namespace
}  // namespace augur
