#include "engine/schedule/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <stdexcept>
#include <vector>

#include "tests/schedule/scheduler_fixture.h"

namespace augur {
namespace {

using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

class SchedulerTest : public test::SchedulerFixture {};

TEST_F(SchedulerTest, CutsALongPromptIntoChunks) {
  make({.max_running = 4, .max_rows = 4, .num_blocks = 10, .block_size = 2});
  add(10, 2);
  EXPECT_EQ(step(), (Rows{{0, 4}}));
  EXPECT_EQ(step(), (Rows{{0, 4}}));
  EXPECT_EQ(step(), (Rows{{0, 2}}));
  EXPECT_EQ(step(), (Rows{{0, 1}}));
  EXPECT_EQ(step(), Rows{});
  EXPECT_EQ(scheduler_->kv().num_free(), 10);
}

TEST_F(SchedulerTest, TakesDecodeRowsFirstAndFillsUpWithPrefill) {
  make({.max_running = 4, .max_rows = 4, .num_blocks = 30, .block_size = 2});
  add(2, 9);
  EXPECT_EQ(step(), (Rows{{0, 2}}));
  add(7, 9);
  add(2, 9);
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 3}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 3}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}, {2, 2}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}, {2, 1}}));
}

TEST_F(SchedulerTest, AdmitsNoMoreThanMayRun) {
  make({.max_running = 2, .max_rows = 100, .num_blocks = 30, .block_size = 2});
  for (int i = 0; i < 3; ++i) add(2, 2);
  EXPECT_EQ(step(), (Rows{{0, 2}, {1, 2}}));
  EXPECT_EQ(scheduler_->num_running(), 2);
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
  EXPECT_EQ(step(), (Rows{{2, 2}}));
}

TEST_F(SchedulerTest, MoreRunThanAStepHasRowsAndTheOldestGoFirst) {
  make({.max_running = 3, .max_rows = 2, .num_blocks = 30, .block_size = 2});
  for (int i = 0; i < 3; ++i) add(1, 3);
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
  EXPECT_EQ(step(), (Rows{{2, 1}}));
}

TEST_F(SchedulerTest, PreemptsTheNewestAndResumesItBeforeNewerOnes) {
  // Each may grow to 4 blocks. All start with 2, and a reserve of one more each.
  make({.max_running = 4, .max_rows = 100, .num_blocks = 6, .block_size = 2});
  add(4, 5);
  ActiveRequest& newer = add(4, 5);
  add(4, 5);
  EXPECT_EQ(step(), (Rows{{0, 4}, {1, 4}}));  // the third would leave no reserve
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}}));
  EXPECT_EQ(step(), (Rows{{0, 1}}));  // its fourth block is taken from the newer one
  EXPECT_EQ(scheduler_->counters().preemptions, 1);
  EXPECT_EQ(newer.sequences[0].state, Sequence::State::kWaiting);
  EXPECT_THAT(newer.sequences[0].blocks, IsEmpty());
  EXPECT_EQ(newer.sequences[0].completion.output_ids.size(), 3u);
  EXPECT_EQ(step(), (Rows{{0, 1}}));
  EXPECT_EQ(step(), (Rows{{1, 7}}));  // prompt and outputs again; not yet the third
  while (!step().empty()) continue;
  EXPECT_EQ(scheduler_->kv().num_free(), 6);
  EXPECT_EQ(scheduler_->counters().preemptions, 1);
}

TEST_F(SchedulerTest, RecomputesLittleWhenTheCacheIsShort) {
  // Room for 13 at their full length, for 40 at their first.
  make({.max_running = 64, .max_rows = 2048, .num_blocks = 160, .block_size = 16});
  constexpr int kSequences = 200;
  for (int i = 0; i < kSequences; ++i) add(64, 128);
  int64_t num_rows = 0;
  int64_t num_steps = 0;
  for (Rows rows = step(); !rows.empty(); rows = step(), ++num_steps) {
    for (const auto& [age, count] : rows) num_rows += count;
  }
  const int64_t least = kSequences * (64 + 128 - 1);
  EXPECT_LT(num_rows, least * 11 / 10);
  EXPECT_LT(num_steps, kSequences * 128 / 13) << "no more at once than the worst case allows";
}

TEST_F(SchedulerTest, AdmitsMoreOnceSequencesProveShort) {
  make({.max_running = 64, .max_rows = 2048, .num_blocks = 80, .block_size = 16});
  const auto count_admitted = [&] {
    std::vector<Sequence*> sequences;
    for (int i = 0; i < 40; ++i) sequences.push_back(&add(16, 160).sequences[0]);
    step();
    const int64_t num_running = scheduler_->num_running();
    for (Sequence* sequence : sequences) scheduler_->end(*sequence);  // after one token
    return num_running;
  };
  const int64_t at_first = count_admitted();
  count_admitted();
  EXPECT_GT(count_admitted(), at_first);
}

TEST_F(SchedulerTest, TheOnlySequenceMayHaveEveryBlock) {
  make({.max_running = 4, .max_rows = 3, .num_blocks = 3, .block_size = 2});
  add(5, 2);
  add(5, 2);
  EXPECT_EQ(step(), (Rows{{0, 3}}));
  EXPECT_EQ(step(), (Rows{{0, 2}}));
  EXPECT_EQ(step(), (Rows{{0, 1}}));
  EXPECT_EQ(step(), (Rows{{1, 3}}));
}

TEST_F(SchedulerTest, RefusesASequenceThatNeverFits) {
  make({.max_running = 4, .max_rows = 4, .num_blocks = 3, .block_size = 2});
  EXPECT_THROW(add(5, 3), std::logic_error);
}

TEST_F(SchedulerTest, CompletionsShareTheFullBlocksOfTheirPrompt) {
  make({.max_running = 4, .max_rows = 100, .num_blocks = 20, .block_size = 2});
  ActiveRequest& active = add(7, 9, /*n=*/3);
  EXPECT_EQ(scheduler_->num_waiting(), 3);
  EXPECT_EQ(step(), (Rows{{0, 7}}));
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}, {2, 1}}));  // one prompt token each is not shared
  for (int i : {1, 2}) {
    const std::vector<int32_t>& first = active.sequences[0].blocks;
    EXPECT_THAT(std::span(active.sequences[i].blocks).first(3),
                ElementsAreArray(std::span(first).first(3)));
    EXPECT_NE(active.sequences[i].blocks[3], first[3]);
  }
  EXPECT_EQ(scheduler_->kv().num_free(), 20 - 3 - 3);
  while (!step().empty()) continue;
  EXPECT_EQ(scheduler_->kv().num_free(), 20);
}

TEST_F(SchedulerTest, AWaitingCompletionFindsThePromptItsSiblingLeft) {
  make({.max_running = 1, .max_rows = 100, .num_blocks = 20, .block_size = 2});
  add(7, 1, /*n=*/2);
  EXPECT_EQ(step(), (Rows{{0, 7}}));  // ends at once
  EXPECT_EQ(scheduler_->num_running(), 0);
  EXPECT_EQ(scheduler_->kv().num_free(), 20 - 3);
  EXPECT_EQ(step(), (Rows{{1, 1}}));
  EXPECT_EQ(scheduler_->kv().num_free(), 20);
}

TEST_F(SchedulerTest, AnIdleSharedPromptGivesWayBeforeARunningSequenceDoes) {
  make({.max_running = 4, .max_rows = 100, .num_blocks = 9, .block_size = 2});
  ActiveRequest& growing = add(5, 10);         // from 3 blocks to 7
  ActiveRequest& shared = add(7, 3, /*n=*/2);  // 3 blocks shared
  EXPECT_EQ(step(), (Rows{{0, 5}, {1, 7}}));
  while (shared.sequences[0].state != Sequence::State::kEnded) step();
  // The second completion does not fit beside the growing one; its prompt is kept for it.
  EXPECT_EQ(shared.sequences[1].state, Sequence::State::kWaiting);
  EXPECT_EQ(scheduler_->kv().num_idle(), 3);
  while (growing.sequences[0].blocks.size() < 6) EXPECT_EQ(step(), (Rows{{0, 1}}));
  EXPECT_EQ(scheduler_->kv().num_free(), 0);
  while (growing.sequences[0].state != Sequence::State::kEnded) EXPECT_EQ(step(), (Rows{{0, 1}}));
  EXPECT_EQ(scheduler_->kv().num_cached(), 2) << "no more is given up than is needed";
  EXPECT_EQ(step(), (Rows{{2, 3}}));
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
  while (!step().empty()) continue;
  EXPECT_EQ(scheduler_->kv().num_free(), 9);
}

TEST_F(SchedulerTest, EndsASequenceInEveryState) {
  make({.max_running = 1, .max_rows = 100, .num_blocks = 20, .block_size = 2});
  ActiveRequest& first = add(7, 9, /*n=*/2);
  ActiveRequest& second = add(7, 9);
  EXPECT_EQ(first.sequences[1].state, Sequence::State::kWaiting);
  scheduler_->end(first.sequences[1]);
  EXPECT_EQ(scheduler_->num_waiting(), 2);
  EXPECT_EQ(step(), (Rows{{0, 7}}));
  scheduler_->end(second.sequences[0]);
  EXPECT_EQ(scheduler_->num_waiting(), 0);
  scheduler_->end(first.sequences[0]);
  scheduler_->end(first.sequences[0]);  // ending twice does nothing
  EXPECT_EQ(scheduler_->num_running(), 0);
  EXPECT_EQ(scheduler_->kv().num_free(), 20);
}

TEST_F(SchedulerTest, PlansTheSameStepAgainWhenItFailed) {
  make({.max_running = 4, .max_rows = 4, .num_blocks = 20, .block_size = 2});
  add(3, 3);
  add(3, 3);
  scheduler_->plan();
  const int64_t num_free = scheduler_->kv().num_free();
  scheduler_->plan();
  EXPECT_EQ(scheduler_->kv().num_free(), num_free);
  EXPECT_EQ(step(), (Rows{{0, 3}, {1, 1}}));
}

TEST_F(SchedulerTest, RefusesLimitsBelowOne) {
  const ScheduleLimits good{.max_running = 1, .max_rows = 1, .num_blocks = 1, .block_size = 1};
  for (int i = 0; i < 4; ++i) {
    ScheduleLimits bad = good;
    if (i == 0) bad.max_running = 0;
    if (i == 1) bad.max_rows = 0;
    if (i == 2) bad.num_blocks = 0;
    if (i == 3) bad.block_size = 0;
    EXPECT_THROW(Scheduler{bad}, std::logic_error) << i;
  }
}

}  // namespace
}  // namespace augur
