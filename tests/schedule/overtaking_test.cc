// The scheduler with an oracle: who is admitted before whom, and how often anyone is overtaken.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <stdexcept>
#include <vector>

#include "tests/schedule/scheduler_fixture.h"
#include "tests/schedule/topic_oracle.h"

namespace augur {
namespace {

using ::testing::ElementsAre;

class OvertakingTest : public test::SchedulerFixture {
 protected:
  // Prompts of these tokens use: the first four experts; the last four; half of each; no known.
  enum Topic : int32_t { kLow = 1, kHigh, kMixed, kUnknown };

  OvertakingTest() {
    oracle_.teach(kLow, {0, 1, 2, 3});
    oracle_.teach(kHigh, {4, 5, 6, 7});
    oracle_.teach(kMixed, {2, 3, 4, 5});
  }

  ScheduleOptions affinity(int64_t window = 16, int64_t max_overtakes = 8) {
    return {.policy = SchedulePolicy::kExpertAffinity,
            .affinity = {.oracle = &oracle_, .window = window, .max_overtakes = max_overtakes}};
  }

  /// One sequence for each topic, with prompts and outputs of two tokens.
  void add_all(std::initializer_list<int32_t> topics) {
    for (const int32_t topic : topics) add(2, 2, /*n=*/1, topic);
  }

  /// Runs until nothing is left; the requests, numbered as added, in the order of admission.
  std::vector<int> admissions() {
    while (!step().empty()) continue;
    std::vector<int> result;
    for (const Sequence* sequence : first_admissions_) {
      const auto found = std::find_if(requests_.begin(), requests_.end(), [&](const auto& request) {
        return request.get() == sequence->request;
      });
      result.push_back(static_cast<int>(found - requests_.begin()));
    }
    return result;
  }

  // Two places: one to keep a topic running, one to fill.
  static constexpr ScheduleLimits kTwoPlaces{
      .max_running = 2, .max_rows = 100, .num_blocks = 100, .block_size = 2};
  test::TopicOracle oracle_;
};

TEST_F(OvertakingTest, AdmitsWhoseExpertsOverlapMost) {
  make(kTwoPlaces, affinity());
  add(2, 50, 1, kLow);
  add_all({kHigh, kMixed, kLow});
  EXPECT_THAT(admissions(), ElementsAre(0, 3, 2, 1));
  EXPECT_EQ(scheduler_->counters().reordered_admissions, 2);
}

TEST_F(OvertakingTest, TheOldestComesFirstWhenNothingRuns) {
  make({.max_running = 1, .max_rows = 100, .num_blocks = 100, .block_size = 2}, affinity());
  add_all({kHigh, kLow, kHigh, kLow});
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2, 3));
}

TEST_F(OvertakingTest, TheOldestComesFirstAmongEquals) {
  make(kTwoPlaces, affinity());
  add(2, 50, 1, kMixed);
  add_all({kHigh, kLow, kMixed, kHigh, kMixed, kLow});
  EXPECT_THAT(admissions(), ElementsAre(0, 3, 5, 1, 2, 4, 6));
}

TEST_F(OvertakingTest, WhatIsUnknownOvertakesNobody) {
  make(kTwoPlaces, affinity());
  add(2, 50, 1, kLow);
  add_all({kUnknown, kHigh, kUnknown, kLow, kUnknown});
  EXPECT_THAT(admissions(), ElementsAre(0, 4, 1, 2, 3, 5));
}

TEST_F(OvertakingTest, AnOracleThatKnowsNothingChangesNoStep) {
  std::vector<Rows> steps[2];
  test::TopicOracle ignorant;
  for (const bool asks : {false, true}) {
    make({.max_running = 5, .max_rows = 20, .num_blocks = 14, .block_size = 2},
         {.policy = asks ? SchedulePolicy::kExpertAffinity : SchedulePolicy::kFcfs,
          .affinity = {.oracle = asks ? &ignorant : nullptr, .max_overtakes = 0}});
    std::mt19937 random(4);
    for (int i = 0; i < 60; ++i) {
      add(static_cast<int>(1 + random() % 9), static_cast<int>(1 + random() % 12),
          static_cast<int>(1 + random() % 3));
    }
    for (Rows rows = step(); !rows.empty(); rows = step()) steps[asks].push_back(rows);
    EXPECT_EQ(scheduler_->counters().reordered_admissions, 0);
    EXPECT_GT(scheduler_->counters().preemptions, 0);
  }
  EXPECT_EQ(steps[0], steps[1]);
  EXPECT_GT(ignorant.num_asked(), 60);
}

TEST_F(OvertakingTest, LooksNoFurtherThanTheWindow) {
  make(kTwoPlaces, affinity(/*window=*/3));
  add(2, 50, 1, kLow);
  add_all({kHigh, kHigh, kMixed, kLow, kLow});
  EXPECT_THAT(admissions(), ElementsAre(0, 3, 4, 5, 1, 2));
}

TEST_F(OvertakingTest, WhoWasOvertakenOftenEnoughIsNext) {
  make(kTwoPlaces, affinity(/*window=*/16, /*max_overtakes=*/2));
  add(2, 50, 1, kLow);
  add_all({kHigh, kLow, kLow, kLow, kHigh, kLow, kLow, kLow});
  // 1 is passed by 2 and 3; then 4 is the oldest; 5 is passed by 6 and 7.
  EXPECT_THAT(admissions(), ElementsAre(0, 2, 3, 1, 4, 6, 7, 5, 8));
}

TEST_F(OvertakingTest, NobodyIsOvertakenWhereNoneMayBe) {
  make(kTwoPlaces, affinity(/*window=*/16, /*max_overtakes=*/0));
  add(2, 50, 1, kLow);
  add_all({kHigh, kLow, kMixed, kLow});
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(OvertakingTest, APreemptedSequenceComesBeforeAllThatFitBetter) {
  // Each may grow to 4 blocks; two start with 2 and a reserve of one more each.
  make({.max_running = 4, .max_rows = 100, .num_blocks = 6, .block_size = 2}, affinity());
  add(4, 5, 1, kLow);
  ActiveRequest& newer = add(4, 5, 1, kHigh);
  step();
  add(2, 5, 1, kLow);
  while (newer.sequences[0].state == Sequence::State::kRunning) step();
  ASSERT_EQ(scheduler_->counters().preemptions, 1);
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2));
  EXPECT_EQ(newer.sequences[0].num_overtaken, 0);
}

TEST_F(OvertakingTest, WhoOvertookOthersIsPreemptedAfterThem) {
  make({.max_running = 3, .max_rows = 100, .num_blocks = 20, .block_size = 2}, affinity());
  ActiveRequest& first = add(2, 9, 1, kLow);
  ActiveRequest& passed = add(2, 9, 1, kHigh);
  ActiveRequest& passer = add(2, 9, 1, kLow);
  step();
  EXPECT_LT(first.sequences[0].age, passer.sequences[0].age);
  EXPECT_LT(passer.sequences[0].age, passed.sequences[0].age);
  EXPECT_EQ(passed.sequences[0].num_overtaken, 1);
  EXPECT_THAT(admissions(), ElementsAre(0, 2, 1));
}

TEST_F(OvertakingTest, TheOldestTakesTheRoomThatIsTooSmallForTheBest) {
  make({.max_running = 4, .max_rows = 100, .num_blocks = 10, .block_size = 2}, affinity());
  add(4, 12, 1, kLow);  // 2 blocks, and a reserve
  add(2, 2, 1, kHigh);  // 1 block
  add(17, 2, 1, kLow);  // 9 blocks
  EXPECT_EQ(step().size(), 2u);
  EXPECT_EQ(requests_[1]->sequences[0].num_overtaken, 0);
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2));
}

TEST_F(OvertakingTest, AStepThatFailedOvertakesNobodyAgain) {
  make(kTwoPlaces, affinity());
  add(2, 50, 1, kLow);
  step();
  add_all({kHigh, kLow, kLow});
  for (int i = 0; i < 3; ++i) scheduler_->plan();
  EXPECT_EQ(requests_[1]->sequences[0].num_overtaken, 1);
  EXPECT_THAT(admissions(), ElementsAre(0, 2, 3, 1));
}

TEST_F(OvertakingTest, RefusesBoundsOutOfRange) {
  EXPECT_THROW(make(kTwoPlaces, affinity(0, 8)), std::logic_error);
  EXPECT_THROW(make(kTwoPlaces, affinity(16, -1)), std::logic_error);
  EXPECT_THROW(make(kTwoPlaces, affinity(16, int64_t{1} << 40)), std::logic_error);
}

/// How often each sequence that waits was passed by one submitted later, counted from the plans.
class OvertakeCounter {
 public:
  void submitted(ActiveRequest& request) {
    for (Sequence& sequence : request.sequences) order_.push_back(&sequence);
  }
  void before_plan() {
    waiting_.clear();
    for (size_t i = 0; i < order_.size(); ++i) {
      const Sequence& sequence = *order_[i];
      if (sequence.state == Sequence::State::kWaiting && !sequence.was_admitted)
        waiting_[order_[i]] = {i, sequence.num_deferrals};
    }
  }
  void admitted(Sequence* sequence) {
    const size_t place = waiting_.at(sequence).place;
    waiting_.erase(sequence);
    for (const auto& [other, was] : waiting_) {
      // Who let this step pass to begin behind a prompt keeps its place.
      if (other->num_deferrals > was.num_deferrals) continue;
      if (was.place < place) most_ = std::max(most_, ++count_[other]);
    }
  }
  int64_t most() const { return most_; }

 private:
  struct Was {
    size_t place;
    int num_deferrals;
  };
  std::vector<Sequence*> order_;
  std::map<Sequence*, Was> waiting_;
  std::map<Sequence*, int64_t> count_;
  int64_t most_ = 0;
};

TEST_F(OvertakingTest, HoldsItsBoundInEveryWorkload) {
  constexpr int kWorkloads = 3000;
  int64_t num_reordered = 0;
  int64_t num_preemptions = 0;
  int num_at_bound = 0;
  for (int workload = 0; workload < kWorkloads && !HasFailure(); ++workload) {
    SCOPED_TRACE(workload);
    std::mt19937 random(workload);
    const auto in = [&](int low, int high) {
      return low + static_cast<int>(random() % (high - low + 1));
    };
    const ScheduleLimits limits{.max_running = in(1, 6),
                                .max_rows = in(1, 40),
                                .num_blocks = in(8, 30),
                                .block_size = in(1, 4)};
    const int max_overtakes = in(0, 5);
    make(limits, affinity(in(1, 12), max_overtakes));
    OvertakeCounter counter;
    int num_to_submit = in(5, 40);
    int num_steps = 0;
    for (bool is_busy = true; is_busy || num_to_submit > 0;) {
      while (num_to_submit > 0 && in(0, 2) > 0) {
        const int num_positions = in(2, static_cast<int>(limits.num_blocks * limits.block_size));
        const int num_prompt = in(1, num_positions);
        --num_to_submit;
        counter.submitted(add(num_prompt, num_positions - num_prompt + 1, in(0, 3) == 0 ? 4 : 1,
                              in(kLow, kUnknown)));
      }
      counter.before_plan();
      first_admissions_.clear();
      is_busy = !step().empty();
      for (Sequence* sequence : first_admissions_) counter.admitted(sequence);
      ASSERT_LT(++num_steps, 20'000) << "no end in sight";
    }
    EXPECT_LE(counter.most(), max_overtakes);
    EXPECT_EQ(scheduler_->num_waiting(), 0);
    EXPECT_EQ(scheduler_->num_running(), 0);
    EXPECT_EQ(scheduler_->kv().num_free(), limits.num_blocks);
    for (const auto& request : requests_) {
      EXPECT_EQ(request->num_live, 0);
      EXPECT_EQ(request->affinity.num_running, 0);
    }
    num_reordered += scheduler_->counters().reordered_admissions;
    num_preemptions += scheduler_->counters().preemptions;
    if (max_overtakes > 0 && counter.most() == max_overtakes) ++num_at_bound;
  }
  // The workloads reach what they are for.
  EXPECT_GT(num_reordered, kWorkloads);
  EXPECT_GT(num_preemptions, kWorkloads);
  EXPECT_GT(num_at_bound, kWorkloads / 10);
}

}  // namespace
}  // namespace augur
