#include "prefetch/transition_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <stdexcept>

#include "tests/prefetch/step_of_rows.h"

namespace augur {
namespace {

using Ids = std::vector<int32_t>;

class TransitionTableTest : public ::testing::Test {
 protected:
  // One step of one row: the experts of layers 1, 3, 4 and 7.
  void run(const std::vector<Ids>& experts) {
    table_.on_step(StepOfRows().decode(0, 5).rows());
    for (size_t i = 0; i < experts.size(); ++i) {
      table_.on_routing(routing_of(kLayers[i], experts[i], static_cast<int>(experts[i].size())));
    }
  }

  static constexpr int kLayers[] = {1, 3, 4, 7};
  TransitionTable table_{MoeLayers({1, 3, 4, 7}, 8), /*max_distance=*/2};
};

TEST_F(TransitionTableTest, GuessesWhatFollowedBefore) {
  run({{0}, {5}, {2}});
  run({{0}, {5}, {2}});
  run({{0}, {6}, {3}});
  run({{1}, {7}, {4}});
  run({{0}});
  EXPECT_EQ(guess(table_, 3, 1, 2), (Ids{5, 6})) << "twice, and once";
  EXPECT_EQ(guess(table_, 4, 1, 2), (Ids{2, 3})) << "two layers ahead, by a table of its own";
  run({{1}});
  EXPECT_EQ(guess(table_, 3, 1, 1), (Ids{7}));
  run({{1}, {5}});
  EXPECT_EQ(guess(table_, 4, 1, 1), (Ids{2})) << "the layer just routed decides";
}

TEST_F(TransitionTableTest, AddsUpWhatTheExpertsOfARowSay) {
  for (int i = 0; i < 8; ++i) {
    run({{0, 1}, {4, 5}});
    run({{0, 2}, {4, 6}});
    run({{3, 2}, {7, 6}});
  }
  run({{0, 2}});
  // 0 led to 4 always, to 5 and 6 half the time; 2 to 6 always, to 4 and 7 half the time.
  Ids guesses = guess(table_, 3, 1, 2);
  std::sort(guesses.begin(), guesses.end());
  EXPECT_EQ(guesses, (Ids{4, 6}));
}

TEST_F(TransitionTableTest, FollowsAChangeOfHabit) {
  for (int i = 0; i < 200; ++i) run({{0}, {5}});
  for (int i = 0; i < 200; ++i) run({{0}, {6}});
  run({{0}});
  EXPECT_EQ(guess(table_, 3, 1, 2), (Ids{6, 5}));
}

TEST_F(TransitionTableTest, GuessesByUsageWhereTheSourceIsNew) {
  for (int i = 0; i < 5; ++i) run({{0}, {5}});
  run({{4}});
  EXPECT_EQ(guess(table_, 3, 1, 1), (Ids{5}));
}

TEST_F(TransitionTableTest, HasNoGuessesBeyondItsReach) {
  run({{0}, {5}, {2}, {3}});
  table_.on_step(StepOfRows().decode(0, 6).rows());
  EXPECT_EQ(guess(table_, 1, 1, 1), (Ids{-1})) << "nothing of this step is known";
  run({{0}});
  EXPECT_EQ(guess(table_, 4, 1, 1), (Ids{2}));
  EXPECT_EQ(guess(table_, 7, 1, 1), (Ids{-1})) << "three layers ahead";
  EXPECT_EQ(guess(table_, 1, 1, 1), (Ids{-1})) << "behind";
  EXPECT_THROW(guess(table_, 2, 1, 1), std::logic_error) << "a dense layer";
}

TEST_F(TransitionTableTest, KeepsRowsApart) {
  run({{0}, {5}});
  run({{1}, {6}});
  table_.on_step(StepOfRows().decode(0, 5).decode(1, 9).rows());
  const Ids experts = {1, 0};
  table_.on_routing(routing_of(1, experts, 1));
  EXPECT_EQ(guess(table_, 3, 2, 1), (Ids{6, 5}));
}

TEST_F(TransitionTableTest, LearnsFromASampleOfLargeStepsAndDoesNotGuessThere) {
  table_.on_step(StepOfRows().add(0, 0, Ids(1000, 1)).rows());
  const Ids sources(1000, 2);
  const Ids targets(1000, 6);
  table_.on_routing(routing_of(1, sources, 1));
  EXPECT_EQ(guess(table_, 3, 1000, 1), Ids(1000, -1));
  table_.on_routing(routing_of(3, targets, 1));
  run({{2}});
  EXPECT_EQ(guess(table_, 3, 1, 1), (Ids{6}));
}

TEST_F(TransitionTableTest, RefusesExpertsThatTheModelLacks) {
  EXPECT_THROW(run({{8}}), std::logic_error);
  EXPECT_THROW(run({{-2}}), std::logic_error);
  run({{-1}, {3}});  // a row that pads the step
}

TEST(TransitionTableRandomTest, GuessesAreDifferentExpertsOfTheModel) {
  std::mt19937 random(9);
  TransitionTable table(MoeLayers({0, 1, 2}, 6), 2);
  for (int i = 0; i < 300; ++i) {
    StepOfRows step;
    const int num_rows = 1 + static_cast<int>(random() % 3);
    for (int row = 0; row < num_rows; ++row) step.decode(row, i);
    table.on_step(step.rows());
    for (int layer = 0; layer < 2; ++layer) {
      Ids experts;
      for (int row = 0; row < num_rows; ++row) {
        const auto first = static_cast<int32_t>(random() % 6);
        experts.insert(experts.end(), {first, (first + 1) % 6});
      }
      table.on_routing(routing_of(layer, experts, 2));
      const Ids guesses = guess(table, layer + 1, num_rows, 8);
      for (int row = 0; row < num_rows; ++row) {
        std::set<int32_t> seen;
        for (int rank = 0; rank < 8; ++rank) {
          const int32_t expert = guesses[row * 8 + rank];
          EXPECT_TRUE(expert >= -1 && expert < 6);
          if (expert >= 0) {
            EXPECT_TRUE(seen.insert(expert).second);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace augur
