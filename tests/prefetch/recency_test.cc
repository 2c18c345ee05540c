#include "prefetch/recency.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>

#include "tests/prefetch/step_of_rows.h"

namespace augur {
namespace {

using Ids = std::vector<int32_t>;

class RecencyTest : public ::testing::Test {
 protected:
  RecencyTest() : recency_(MoeLayers({2, 3}, 10), options()) {}
  static Recency::Options options() {
    Recency::Options options;
    options.depth = 5;
    options.max_idle_steps = 20;
    options.max_sequences = 4;
    return options;
  }
  void begin(StepOfRows step) {
    step_ = std::move(step);
    recency_.on_step(step_.rows());
  }
  void run(int64_t sequence_id, const Ids& experts, int layer = 2) {
    begin(StepOfRows().decode(sequence_id, 7));
    recency_.on_routing(routing_of(layer, experts, 2));
    recency_.on_step_end();
  }
  Ids guess_for(int64_t sequence_id, int width, int layer = 2) {
    begin(StepOfRows().decode(sequence_id, 7));
    return guess(recency_, layer, 1, width);
  }

  Recency recency_;
  StepOfRows step_;  // the one under way
};

TEST_F(RecencyTest, RanksTheLastTokenFirstInTheOrderOfItsChoice) {
  run(1, {4, 7});
  run(1, {3, 4});
  run(1, {9, 1});
  EXPECT_EQ(guess_for(1, 6), (Ids{9, 1, 3, 4, 7, -1}));
  EXPECT_EQ(guess_for(1, 2), (Ids{9, 1}));
  EXPECT_EQ(guess_for(1, 2, /*layer=*/3), (Ids{-1, -1})) << "layers are remembered apart";
}

TEST_F(RecencyTest, RemembersNoMoreThanItsDepth) {
  run(1, {0, 1});
  run(1, {2, 3});
  run(1, {4, 5});
  EXPECT_EQ(guess_for(1, 6), (Ids{4, 5, 2, 3, 0, -1}));
}

TEST_F(RecencyTest, FillsUpFromAllSequences) {
  run(1, {4, 7});
  run(2, {5, 4});
  EXPECT_EQ(guess_for(1, 4), (Ids{4, 7, 5, -1})) << "its own first";
  EXPECT_EQ(guess_for(3, 4), (Ids{5, 4, 7, -1})) << "a new sequence has none of its own";
}

TEST_F(RecencyTest, KeepsTheRowsOfABatchApart) {
  begin(StepOfRows().decode(1, 7).decode(2, 3));
  const Ids experts = {4, 7, 5, 6};
  recency_.on_routing(routing_of(2, experts, 2));
  begin(StepOfRows().decode(2, 4).decode(1, 8));
  EXPECT_EQ(guess(recency_, 2, 2, 2), (Ids{5, 6, 4, 7}));
}

TEST_F(RecencyTest, ReadsTheEndOfALongChunk) {
  begin(StepOfRows().add(1, 0, Ids(200, 1)));
  Ids experts(200, 0);
  experts[199] = 8;
  experts[198] = 7;
  recency_.on_routing(routing_of(2, experts, 1));
  EXPECT_EQ(guess(recency_, 2, 200, 1), Ids(200, -1)) << "no guesses in large steps";
  EXPECT_EQ(guess_for(1, 3), (Ids{8, 7, 0}));
}

TEST_F(RecencyTest, ForgetsSequencesThatDoNotRun) {
  run(1, {4, 7});
  for (int i = 0; i < 40; ++i) run(2, {5, 6});
  EXPECT_EQ(recency_.num_sequences(), 1u);
  EXPECT_EQ(guess_for(1, 2), (Ids{5, 6}));
}

TEST_F(RecencyTest, KeepsTheSequencesThatRanLastWhenThereAreTooMany) {
  for (int64_t id = 0; id < 6; ++id) run(id, {static_cast<int32_t>(id), 9});
  EXPECT_EQ(recency_.num_sequences(), 4u);
  EXPECT_EQ(guess_for(2, 1), (Ids{2}));
  StepOfRows many;
  for (int64_t id = 100; id < 107; ++id) many.decode(id, 1);
  begin(many);
  EXPECT_EQ(guess(recency_, 2, 7, 1), Ids(7, 5)) << "a step may have more";
}

TEST_F(RecencyTest, RefusesWhatDoesNotFit) {
  begin(StepOfRows().decode(1, 7));
  EXPECT_THROW(recency_.on_routing(routing_of(2, Ids{1, 2, 3, 4}, 2)), std::logic_error);
  EXPECT_THROW(recency_.on_routing(routing_of(2, Ids{1, 10}, 2)), std::logic_error);
  EXPECT_THROW(recency_.on_routing(routing_of(1, Ids{1, 2}, 2)), std::logic_error);
}

}  // namespace
}  // namespace augur
