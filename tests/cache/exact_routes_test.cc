#include "cache/exact_routes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

namespace augur {
namespace {

constexpr int kTopK = 2;
const std::vector<int> kLayers = {1, 2, 4};
using Prefix = std::vector<int32_t>;

ExactRoutesShape shape_of(int num_nodes, int num_sequences = 16) {
  return {kLayers, kTopK, /*max_tokens=*/64, num_nodes, num_sequences};
}

/// A step of chosen tokens, row after row.
struct Step {
  std::vector<int32_t> tokens, positions, sequences;
  std::vector<int64_t> ids;

  void add(int64_t id, std::vector<int32_t> next, int32_t first_position) {
    ids.push_back(id);
    for (int i = 0; i < std::ssize(next); ++i) {
      tokens.push_back(next[i]);
      positions.push_back(first_position + i);
      sequences.push_back(static_cast<int32_t>(ids.size()) - 1);
    }
  }
  StepRows rows() const { return {std::ssize(tokens), 0, tokens, positions, sequences, ids}; }
};

/// What a model would choose: any function of the whole prefix.
std::vector<int32_t> chosen(const Prefix& prefix, int layer) {
  uint32_t mixed = 17 + static_cast<uint32_t>(layer);
  for (const int32_t token : prefix) mixed = mixed * 31 + static_cast<uint32_t>(token) + 1;
  return {static_cast<int32_t>(mixed % 97), static_cast<int32_t>(mixed / 97 % 97)};
}

void record(ExactRoutes& routes, int64_t row, int layer, const Prefix& prefix) {
  const std::vector<int32_t> experts = chosen(prefix, layer);
  const float weights[] = {static_cast<float>(experts[0]), static_cast<float>(experts[1])};
  routes.record(row, layer, experts.data(), weights);
}

bool is_known(const ExactRoutes& routes, int64_t row, int layer) {
  return !routes.routes(row, layer).experts.empty();
}

TEST(ExactRoutesTest, KnowsATextThatRanBeforeInAllRecordedLayers) {
  ExactRoutes routes(shape_of(20));
  Step first;
  first.add(7, {5, 6, 5}, 0);
  routes.on_step(first.rows());
  EXPECT_FALSE(is_known(routes, 0, 1));
  for (int row = 0; row < 3; ++row) record(routes, row, 1, {row});
  record(routes, 2, 4, {9});
  EXPECT_TRUE(is_known(routes, 2, 4));

  Step second;
  second.add(8, {5, 6, 6}, 0);
  routes.on_step(second.rows());
  EXPECT_TRUE(is_known(routes, 1, 1));
  EXPECT_EQ(routes.routes(1, 1).experts[0], chosen({1}, 1)[0]);
  EXPECT_EQ(routes.routes(1, 1).weights[1], static_cast<float>(chosen({1}, 1)[1]));
  EXPECT_FALSE(is_known(routes, 1, 2)) << "never recorded";
  EXPECT_FALSE(is_known(routes, 2, 1)) << "another token";

  Step third;  // 7 goes on after 5, 6, 5; 9 begins with the second's text
  third.add(7, {1}, 3);
  third.add(9, {5}, 0);
  routes.on_step(third.rows());
  EXPECT_FALSE(is_known(routes, 0, 1));
  EXPECT_TRUE(is_known(routes, 1, 1));
  EXPECT_EQ(routes.num_used_nodes(), 5);
}

TEST(ExactRoutesTest, ASequenceThatCannotBeFollowedIsLostUntilItBeginsAgain) {
  ExactRoutes routes(shape_of(20));
  const auto run = [&](std::vector<int32_t> tokens, int32_t position) {
    Step step;
    step.add(1, std::move(tokens), position);
    routes.on_step(step.rows());
    record(routes, 0, 1, {1});
    return is_known(routes, 0, 1);
  };
  EXPECT_FALSE(run({5}, 2)) << "it begins in the middle";
  EXPECT_TRUE(run({5, 6}, 0));
  EXPECT_TRUE(run({7}, 2));
  EXPECT_FALSE(run({8}, 4)) << "position 3 is missing";
  EXPECT_FALSE(run({8}, 5)) << "and stays missing";
  EXPECT_TRUE(run({5}, 0));
  EXPECT_FALSE(run({-1}, 1)) << "an unknown token";
  EXPECT_FALSE(run({6}, 2));
  EXPECT_EQ(routes.counts().num_lost_rows, 5);
}

TEST(ExactRoutesTest, ForgetsTheLeafUsedLongestAgo) {
  ExactRoutes routes(shape_of(4));
  const auto run = [&](int64_t id, std::vector<int32_t> tokens) {
    Step step;
    const auto count = std::ssize(tokens);
    step.add(id, std::move(tokens), 0);
    routes.on_step(step.rows());
    const bool was_known = is_known(routes, count - 1, 1);
    for (int64_t row = 0; row < count; ++row) record(routes, row, 1, {1});
    return was_known;
  };
  EXPECT_FALSE(run(1, {1, 2}));
  EXPECT_FALSE(run(2, {1, 3}));
  EXPECT_FALSE(run(3, {1, 4}));
  EXPECT_TRUE(run(4, {1, 2}));
  EXPECT_FALSE(run(5, {1, 5})) << "takes the place of 1, 3";
  EXPECT_TRUE(run(6, {1, 4}));
  EXPECT_TRUE(run(7, {1, 2}));
  EXPECT_FALSE(run(8, {1, 3}));
  EXPECT_EQ(routes.num_used_nodes(), 4);
}

TEST(ExactRoutesTest, RowsOfOneStepNeverPushEachOtherOut) {
  ExactRoutes routes(shape_of(3));
  Step step;
  step.add(1, {1, 2, 3, 4, 5}, 0);
  routes.on_step(step.rows());
  for (int row = 0; row < 5; ++row) {
    record(routes, row, 1, {row});
    EXPECT_EQ(is_known(routes, row, 1), row < 3);
  }
  EXPECT_EQ(routes.counts().num_lost_rows, 2);
}

TEST(ExactRoutesTest, RefusesWhatItsRequirementsForbid) {
  EXPECT_THROW(ExactRoutes(shape_of(0)), std::logic_error);
  ExactRoutes routes(shape_of(3));
  EXPECT_THROW((void)routes.routes(0, 1), std::logic_error) << "no step yet";
  Step step;
  step.add(1, std::vector<int32_t>(65, 1), 0);
  EXPECT_THROW(routes.on_step(step.rows()), std::logic_error);
}

// Random batches of sequences over few tokens, so that texts meet often; sequences end, are
// preempted and begin again, and the trie is as small or as large as the parameter says.
class ExactRoutesRandomTest : public ::testing::TestWithParam<int> {
 protected:
  struct Sequence {
    int64_t id = 0;
    Prefix text;
    int64_t num_done = 0;
  };

  void add_sequence() {
    Sequence sequence;
    sequence.id = next_id_++;
    const auto length = 1 + random_() % 12;
    for (size_t i = 0; i < length; ++i) {
      sequence.text.push_back(static_cast<int32_t>(random_() % 3));
    }
    sequences_.push_back(std::move(sequence));
  }
  /// A step of some of the sequences, and the prefix of each of its rows.
  Step make_step(std::vector<Prefix>& prefixes) {
    Step step;
    std::shuffle(sequences_.begin(), sequences_.end(), random_);
    for (size_t i = 0; i < 3; ++i) {
      Sequence& sequence = sequences_[i];
      if (random_() % 10 == 0) sequence.num_done = 0;  // preempted
      const int64_t left = std::ssize(sequence.text) - sequence.num_done;
      const int64_t count = 1 + static_cast<int64_t>(random_() % left);
      const auto first = sequence.text.begin() + sequence.num_done;
      step.add(sequence.id, Prefix(first, first + count), static_cast<int32_t>(sequence.num_done));
      for (int64_t k = 1; k <= count; ++k) {
        prefixes.emplace_back(sequence.text.begin(), first + k);
      }
      sequence.num_done += count;
    }
    return step;
  }
  void replace_finished() {
    std::erase_if(sequences_, [](const Sequence& s) { return s.num_done == std::ssize(s.text); });
    while (sequences_.size() < 6) add_sequence();
  }

  std::mt19937 random_{5};
  int64_t next_id_ = 100;
  std::vector<Sequence> sequences_;
};
INSTANTIATE_TEST_SUITE_P(Nodes, ExactRoutesRandomTest, ::testing::Values(1, 7, 40, 200, 20000));

TEST_P(ExactRoutesRandomTest, AgreesWithAMapOfWholePrefixes) {
  const int num_nodes = GetParam();
  const bool has_room = num_nodes == 20000;
  ExactRoutes routes(shape_of(num_nodes, /*num_sequences=*/has_room ? 20000 : 4));
  std::map<std::pair<Prefix, int>, std::vector<int32_t>> recorded;
  int64_t num_known = 0;
  for (int round = 0; round < 2000; ++round) {
    replace_finished();
    std::vector<Prefix> prefixes;
    const Step step = make_step(prefixes);
    routes.on_step(step.rows());
    for (int64_t row = 0; row < std::ssize(prefixes); ++row) {
      for (const int layer : kLayers) {
        const auto expected = recorded.find({prefixes[row], layer});
        const ExactRoutes::Routes found = routes.routes(row, layer);
        if (!found.experts.empty()) {
          ASSERT_NE(expected, recorded.end()) << "it knows what was never recorded";
          ASSERT_TRUE(std::ranges::equal(found.experts, expected->second));
          ASSERT_EQ(found.weights[1], static_cast<float>(expected->second[1]));
          ++num_known;
        } else if (has_room) {
          ASSERT_EQ(expected, recorded.end()) << "it forgot without need";
        }
      }
    }
    for (int64_t row = 0; row < std::ssize(prefixes); ++row) {
      for (const int layer : kLayers) {
        if (random_() % 8 == 0) continue;
        record(routes, row, layer, prefixes[row]);
        const bool was_stored = is_known(routes, row, layer);
        if (was_stored || has_room) recorded[{prefixes[row], layer}] = chosen(prefixes[row], layer);
        ASSERT_TRUE(was_stored || !has_room);
      }
    }
    ASSERT_LE(routes.num_used_nodes(), num_nodes);
  }
  if (num_nodes >= 40) {
    EXPECT_GT(num_known, 500) << "the test would not have seen much";
  }
  if (num_nodes <= 200) {
    EXPECT_GT(routes.counts().num_evictions, 0);
  }
}

}  // namespace
}  // namespace augur
