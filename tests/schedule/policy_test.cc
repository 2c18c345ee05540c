// Whom each policy admits next, whom it preempts, and how tenants share.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/schedule/scheduler_fixture.h"

namespace augur {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PolicyTest : public test::SchedulerFixture {
 protected:
  static Request request(int num_prompt, int32_t token_id = 1) {
    Request request;
    request.prompt_ids.assign(num_prompt, token_id);
    return request;
  }
  ActiveRequest& add_with_priority(int64_t priority, int num_prompt, int max_tokens) {
    Request asked = request(num_prompt, static_cast<int32_t>(10 + requests_.size()));
    asked.priority = priority;
    return add(std::move(asked), max_tokens);
  }
  ActiveRequest& add_for(const std::string& tenant, int num_prompt, int max_tokens) {
    Request asked = request(num_prompt, static_cast<int32_t>(10 + requests_.size()));
    asked.tenant = tenant;
    return add(std::move(asked), max_tokens);
  }
  /// Runs until nothing is left; the requests, numbered as added, in the order of admission.
  std::vector<int> admissions() {
    int num_steps = 0;
    while (!step().empty() && ++num_steps < 10'000) continue;
    EXPECT_LT(num_steps, 10'000);
    std::vector<int> result;
    for (const Sequence* sequence : first_admissions_) {
      const auto found = std::find_if(requests_.begin(), requests_.end(), [&](const auto& request) {
        return request.get() == sequence->request;
      });
      result.push_back(static_cast<int>(found - requests_.begin()));
    }
    return result;
  }

  static constexpr ScheduleLimits kOnePlace{
      .max_running = 1, .max_rows = 100, .num_blocks = 100, .block_size = 2};
  const ScheduleOptions kPriority{.policy = SchedulePolicy::kPriority};
  const ScheduleOptions kFair{.fair_queueing = true};
};

class LongestPrefixTest : public PolicyTest {
 protected:
  ScheduleOptions options(int64_t window = 16, int64_t max_overtakes = 8) {
    return {.policy = SchedulePolicy::kLongestPrefixMatch,
            .affinity = {.window = window, .max_overtakes = max_overtakes},
            .prefix_cache = true};
  }
  /// The cache has 20 tokens 1; requests begin with so many of them.
  void begin_with(std::initializer_list<int> num_common) {
    add(request(20), 1);
    step();
    for (const int count : num_common) {
      Request asked = request(count);
      asked.prompt_ids.resize(25, static_cast<int32_t>(100 + requests_.size()));
      add(std::move(asked), 1);
    }
  }
};

TEST_F(LongestPrefixTest, AdmitsWhoHasTheMostCachedTokens) {
  make(kOnePlace, options());
  begin_with({0, 8, 16, 9});
  EXPECT_THAT(admissions(), ElementsAre(0, 3, 2, 4, 1));
  EXPECT_EQ(scheduler_->counters().reordered_admissions, 3);
}

TEST_F(LongestPrefixTest, TheOldestComesFirstAmongEquals) {
  make(kOnePlace, options());
  begin_with({0, 0, 4, 4, 0});
  EXPECT_THAT(admissions(), ElementsAre(0, 3, 4, 1, 2, 5));
}

TEST_F(LongestPrefixTest, NobodyIsOvertakenMoreOftenThanAllowed) {
  make(kOnePlace, options(/*window=*/16, /*max_overtakes=*/2));
  begin_with({0, 10, 10, 10, 10});
  EXPECT_THAT(admissions(), ElementsAre(0, 2, 3, 1, 4, 5));
}

TEST_F(LongestPrefixTest, LooksNoFurtherThanTheWindow) {
  make(kOnePlace, options(/*window=*/2));
  begin_with({0, 0, 10});
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 3, 2));
}

TEST_F(LongestPrefixTest, WhoComesLaterIsFoundWhatWasComputedMeanwhile) {
  make(kOnePlace, options());
  Request first = request(20, 5);
  add(std::move(first), 3);
  add(request(20, 6), 1);
  add(request(20, 5), 1);
  EXPECT_THAT(admissions(), ElementsAre(0, 2, 1));
}

class PriorityTest : public PolicyTest {
 protected:
  /// Whoever waits while worse ones run lacks more blocks, those to grow into included, than the
  /// worse ones hold.
  void expect_nobody_is_held_up_by_worse() {
    const Sequence* best = nullptr;
    for (const auto& request : requests_) {
      const Sequence& sequence = request->sequences[0];
      if (sequence.state != Sequence::State::kWaiting) continue;
      if (best == nullptr || sequence.priority < best->priority) best = &sequence;
    }
    if (best == nullptr) return;
    int64_t num_worse = 0;
    int64_t num_there = scheduler_->kv().num_available();
    int64_t num_wanted = scheduler_->kv().blocks_for(best->max_positions);
    for (const auto& request : requests_) {
      const Sequence& sequence = request->sequences[0];
      if (sequence.state != Sequence::State::kRunning) continue;
      const auto num_held = static_cast<int64_t>(sequence.blocks.size());
      if (sequence.priority > best->priority) {
        ++num_worse;
        num_there += num_held;
      } else {
        num_wanted += scheduler_->kv().blocks_for(sequence.max_positions) - num_held;
      }
    }
    if (num_worse == 0) return;
    ++num_checked_;
    EXPECT_LT(num_there, num_wanted);
  }

  int64_t num_checked_ = 0;
};

TEST_F(PriorityTest, LowerIsServedEarlierThenWhoIsOlder) {
  make(kOnePlace, kPriority);
  for (const int64_t priority : {5, 3, 5, 3, -1}) add_with_priority(priority, 2, 1);
  EXPECT_THAT(admissions(), ElementsAre(4, 1, 3, 0, 2));
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
}

TEST_F(PriorityTest, OtherPoliciesKnowNoPriorities) {
  make(kOnePlace);
  for (const int64_t priority : {5, 3, -1}) add_with_priority(priority, 2, 1);
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2));
}

TEST_F(PriorityTest, TheWorstGivesUpItsPlaceToABetterOne) {
  make({.max_running = 2, .max_rows = 100, .num_blocks = 100, .block_size = 2}, kPriority);
  add_with_priority(1, 4, 9);
  ActiveRequest& worst = add_with_priority(2, 4, 9);
  step();
  step();
  EXPECT_FALSE(scheduler_->could_admit());
  add_with_priority(1, 4, 2);
  EXPECT_TRUE(scheduler_->could_admit());
  EXPECT_EQ(step(), (Rows{{0, 1}, {2, 4}}));
  EXPECT_EQ(worst.sequences[0].state, Sequence::State::kWaiting);
  EXPECT_EQ(scheduler_->counters().preemptions, 1);
  step();
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 6}}));
}

TEST_F(PriorityTest, NobodyGivesUpAPlaceToAnEqual) {
  make(kOnePlace, kPriority);
  add_with_priority(1, 4, 5);
  step();
  add_with_priority(1, 4, 5);
  EXPECT_FALSE(scheduler_->could_admit());
  EXPECT_THAT(admissions(), ElementsAre(0, 1));
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
}

TEST_F(PriorityTest, TheWorstGiveUpTheirBlocksToABetterOne) {
  make({.max_running = 8, .max_rows = 100, .num_blocks = 13, .block_size = 2}, kPriority);
  for (const int64_t priority : {1, 5, 5}) add_with_priority(priority, 4, 3);
  EXPECT_EQ(step().size(), 3u);
  add_with_priority(0, 14, 2);  // 7 blocks of 13 and one to grow; the others hold 2 each
  EXPECT_EQ(step(), (Rows{{0, 1}, {1, 1}, {3, 14}})) << "one of them is enough";
  EXPECT_EQ(scheduler_->counters().preemptions, 1);
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2, 3));
}

TEST_F(PriorityTest, NobodyIsPreemptedInVain) {
  make({.max_running = 8, .max_rows = 100, .num_blocks = 12, .block_size = 2}, kPriority);
  add_with_priority(0, 10, 9);
  add_with_priority(5, 4, 3);
  EXPECT_EQ(step().size(), 2u);
  add_with_priority(1, 16, 2);  // 8 blocks: not even without the worst
  EXPECT_EQ(step().size(), 2u);
  EXPECT_EQ(scheduler_->counters().preemptions, 0);
}

TEST_F(PriorityTest, APromptOfAWorseOneHoldsNobodyUp) {
  make({.max_running = 4, .max_rows = 10, .num_blocks = 100, .block_size = 2}, kPriority);
  add_with_priority(5, 60, 2);
  EXPECT_EQ(step(), (Rows{{0, 10}}));
  add_with_priority(0, 8, 2);
  EXPECT_EQ(step(), (Rows{{1, 8}, {0, 2}}));
  EXPECT_EQ(step(), (Rows{{1, 1}, {0, 9}}));
}

TEST_F(PriorityTest, WhenMemoryIsShortTheWorstIsPreemptedNotTheNewest) {
  make({.max_running = 4, .max_rows = 100, .num_blocks = 6, .block_size = 2}, kPriority);
  ActiveRequest& worse = add_with_priority(5, 4, 5);
  ActiveRequest& better = add_with_priority(1, 4, 5);
  while (better.sequences[0].state != Sequence::State::kEnded) step();
  EXPECT_EQ(scheduler_->counters().preemptions, 1);
  EXPECT_EQ(worse.sequences[0].state, Sequence::State::kWaiting);
  admissions();
  EXPECT_EQ(scheduler_->kv().num_free(), 6);
}

TEST_F(PriorityTest, APreemptedSequenceResumesBeforeNewOnesAsGoodAsIt) {
  make(kOnePlace, kPriority);
  add_with_priority(5, 4, 3);
  step();
  add_with_priority(5, 4, 1);
  add_with_priority(0, 4, 1);
  EXPECT_EQ(step(), (Rows{{2, 4}}));
  EXPECT_EQ(step(), (Rows{{0, 5}}));
  EXPECT_EQ(step(), (Rows{{0, 1}}));
  EXPECT_EQ(step(), (Rows{{1, 4}}));
}

TEST_F(PriorityTest, RandomWorkloadsEndAndTheBestIsNeverHeldUpByWorse) {
  int64_t num_preemptions = 0;
  for (int workload = 0; workload < 1000 && !HasFailure(); ++workload) {
    SCOPED_TRACE(workload);
    std::mt19937 random(workload);
    const auto in = [&](int low, int high) {
      return low + static_cast<int>(random() % (high - low + 1));
    };
    const ScheduleLimits limits{.max_running = in(1, 5),
                                .max_rows = in(5, 40),
                                .num_blocks = in(8, 30),
                                .block_size = in(1, 4)};
    make(limits, {.policy = SchedulePolicy::kPriority, .prefix_cache = in(0, 1) == 1});
    int num_to_submit = in(5, 30);
    int num_steps = 0;
    for (bool is_busy = true; is_busy || num_to_submit > 0;) {
      while (num_to_submit > 0 && in(0, 2) > 0) {
        const int num_positions = in(2, static_cast<int>(limits.num_blocks * limits.block_size));
        const int num_prompt = in(1, num_positions);
        --num_to_submit;
        add_with_priority(in(0, 3), num_prompt, num_positions - num_prompt + 1);
      }
      scheduler_->plan();
      expect_nobody_is_held_up_by_worse();
      is_busy = !step().empty();
      ASSERT_LT(++num_steps, 20'000) << "no end in sight";
    }
    num_preemptions += scheduler_->counters().preemptions;
    scheduler_->flush_prefixes();
    EXPECT_EQ(scheduler_->kv().num_free(), limits.num_blocks);
  }
  EXPECT_GT(num_preemptions, 1000);
  EXPECT_GT(num_checked_, 100);
}

using FairnessTest = PolicyTest;

TEST_F(FairnessTest, ATenantWithManyRequestsDoesNotHoldUpAnother) {
  make(kOnePlace, kFair);
  for (int i = 0; i < 5; ++i) add_for("many", 10, 1);
  add_for("few", 10, 1);
  add_for("few", 10, 1);
  // Equal costs: they take turns, and the rest comes when the other has no more.
  EXPECT_THAT(admissions(), ElementsAre(0, 5, 1, 6, 2, 3, 4));
}

TEST_F(FairnessTest, WithoutItWhoComesFirstIsServedFirst) {
  make(kOnePlace);
  for (int i = 0; i < 3; ++i) add_for("many", 10, 1);
  add_for("few", 10, 1);
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2, 3));
}

TEST_F(FairnessTest, OutputsCountTwiceAndCachedTokensDoNot) {
  make(kOnePlace, {.fair_queueing = true, .prefix_cache = true});
  for (int i = 0; i < 3; ++i) {
    Request asked = request(41, 7);  // the second and third compute one row each
    asked.tenant = "alike";
    add(std::move(asked), 1);
  }
  // 10 + 2 * 11 are less than 41 + 2, twice that is more than 43 + 3 + 3.
  for (int i = 0; i < 3; ++i) add_for("others", 10, 11);
  EXPECT_THAT(admissions(), ElementsAre(0, 3, 4, 1, 2, 5));
}

TEST_F(FairnessTest, ServesBackloggedTenantsAlike) {
  make({.max_running = 6, .max_rows = 64, .num_blocks = 400, .block_size = 4}, kFair);
  std::mt19937 random(3);
  const std::vector<std::string> tenants = {"short", "long", "crowd"};
  std::map<std::string, int64_t> served;
  // "crowd" asks for ten times as many requests; all always have some waiting.
  const auto submit = [&](const std::string& tenant) {
    const int scale = tenant == "long" ? 40 : 8;
    add_for(tenant, 1 + static_cast<int>(random() % scale), 1 + static_cast<int>(random() % scale));
  };
  for (int i = 0; i < 300; ++i) {
    for (const std::string& tenant : tenants) {
      submit(tenant);
      for (int more = 0; more < 9 && tenant == "crowd"; ++more) submit(tenant);
    }
  }
  for (int i = 0; i < 400; ++i) {
    const std::vector<ScheduledRows> plan = scheduler_->plan();
    scheduler_->commit(plan);
    for (const ScheduledRows& rows : plan) {
      Sequence& sequence = *rows.sequence;
      const std::string& tenant = sequence.request->request.tenant;
      if (rows.first_position == 0) served[tenant] += sequence.prompt_rows;
      if (sequence.num_pending() > 0) continue;
      served[tenant] += 2;
      sequence.completion.output_ids.push_back(2);
      if (sequence.num_known() == sequence.max_length) scheduler_->end(sequence);
    }
  }
  // The difference between two that always wait is bounded by what those that run may still come
  // to: places times prompt and output of the longest.
  const int64_t bound = 6 * (40 + 2 * 40);
  EXPECT_GT(served["short"], 3 * bound);
  for (const std::string& tenant : tenants) {
    EXPECT_NEAR(static_cast<double>(served[tenant]), static_cast<double>(served["short"]), bound);
  }
}

TEST_F(FairnessTest, WithinATenantThePolicyDecides) {
  make(kOnePlace, {.policy = SchedulePolicy::kPriority, .fair_queueing = true});
  for (const int64_t priority : {5, 3, 4}) {
    ActiveRequest& active = add_with_priority(priority, 10, 1);
    EXPECT_EQ(active.sequences[0].priority, priority);
  }
  EXPECT_THAT(admissions(), ElementsAre(1, 2, 0));
}

TEST_F(FairnessTest, PreemptedSequencesResumeBeforeAnyTenantsTurn) {
  // Each may grow to 4 blocks; two start with 2 and a reserve of one more each.
  make({.max_running = 4, .max_rows = 100, .num_blocks = 6, .block_size = 2}, kFair);
  add_for("a", 4, 5);
  ActiveRequest& newer = add_for("a", 4, 5);
  step();
  add_for("b", 2, 5);
  while (newer.sequences[0].state == Sequence::State::kRunning) step();
  EXPECT_THAT(newer.sequences[0].blocks, IsEmpty());
  EXPECT_THAT(admissions(), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace augur
