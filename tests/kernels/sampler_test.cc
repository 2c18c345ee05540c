#include "kernels/cpu/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "kernels/cpu/philox.h"

namespace augur::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class SamplerTest : public ::testing::Test {
 protected:
  /// Draws a token per row of settings; all rows have these logits.
  std::vector<int32_t> draw(const std::vector<float>& logits,
                            const std::vector<SamplingRow>& rows) {
    const auto vocab_size = static_cast<int64_t>(logits.size());
    const auto num_rows = static_cast<int64_t>(rows.size());
    std::vector<float> all;
    for (int64_t i = 0; i < num_rows; ++i) all.insert(all.end(), logits.begin(), logits.end());
    // Contents of the scratch must not matter: NaN, and the pattern is a large id as an integer.
    std::vector<double> scratch(sample_scratch_bytes(vocab_size, pool_.num_threads()) / 8 + 8,
                                kNan);
    std::vector<int32_t> ids(num_rows, -1);
    sample({dense(all.data(), DType::kF32, num_rows, vocab_size), rows, ids.data()}, pool_,
           std::as_writable_bytes(std::span(scratch)));
    return ids;
  }
  int32_t draw_one(const std::vector<float>& logits, const SamplingRow& row) {
    return draw(logits, {row})[0];
  }
  /// How often each token comes in `num_draws` draws.
  std::map<int32_t, int64_t> count(const std::vector<float>& logits,
                                   SamplingRow row,
                                   int64_t num_draws) {
    std::vector<SamplingRow> rows(num_draws, row);
    for (int64_t i = 0; i < num_draws; ++i) rows[i].draw_idx = i;
    std::map<int32_t, int64_t> counts;
    for (const int32_t id : draw(logits, rows)) ++counts[id];
    return counts;
  }
  std::set<int32_t> support(const std::vector<float>& logits, const SamplingRow& row) {
    std::set<int32_t> ids;
    for (const auto& [id, num_draws] : count(logits, row, 1000)) ids.insert(id);
    return ids;
  }

  WorkerPool pool_{2};
};

using Ids = std::set<int32_t>;

std::vector<float> log_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

/// Pearson's statistic of the counts against the probabilities.
double chi_square(const std::map<int32_t, int64_t>& counts,
                  const std::vector<double>& probabilities,
                  int64_t num_draws) {
  double statistic = 0;
  for (size_t id = 0; id < probabilities.size(); ++id) {
    const double expected = probabilities[id] * static_cast<double>(num_draws);
    const auto found = counts.find(static_cast<int32_t>(id));
    const double seen = found == counts.end() ? 0.0 : static_cast<double>(found->second);
    if (expected == 0) {
      EXPECT_EQ(seen, 0) << "token " << id;
      continue;
    }
    statistic += (seen - expected) * (seen - expected) / expected;
  }
  return statistic;
}

TEST(Philox, GivesTheWordsItsAuthorsPublish) {
  // Known answers of the Random123 distribution, philox4x32 with 10 rounds.
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UniformDrawsFillTheUnitInterval) {
  constexpr int kDraws = 100000;
  std::map<int32_t, int64_t> counts;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double u = uniform_draw(/*seed=*/42, i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++counts[static_cast<int32_t>(u * 100)];
  }
  // 99 degrees of freedom: 148 is exceeded once in a thousand.
  EXPECT_LT(chi_square(counts, std::vector<double>(100, 0.01), kDraws), 148);
  EXPECT_NE(uniform_draw(1, 0), uniform_draw(uint64_t{1} << 32, 0));
  EXPECT_NE(uniform_draw(0, 1), uniform_draw(0, uint64_t{1} << 32));
}

TEST_F(SamplerTest, ZeroTemperatureTakesTheLargestTiesToTheLowerId) {
  EXPECT_EQ(draw_one({1, 5, 5, 2}, {.temperature = 0}), 1);
  EXPECT_EQ(draw_one({-3}, {.temperature = 0}), 0);
  std::vector<float> wide(5000, 0.5f);
  wide[4999] = 0.75f;
  wide[4500] = 0.75f;
  EXPECT_EQ(draw_one(wide, {.temperature = 0}), 4500);
}

TEST_F(SamplerTest, DrawsFollowTheSoftmax) {
  const std::vector<double> p = {0.4, 0.05, 0.25, 0.0, 0.2, 0.1};
  std::vector<float> logits = log_of(p);
  logits[3] = -kInfinity;
  constexpr int64_t kDraws = 50000;
  // 4 degrees of freedom: 18.5 is exceeded once in a thousand.
  EXPECT_LT(chi_square(count(logits, {.seed = 7}, kDraws), p, kDraws), 18.5);
}

TEST_F(SamplerTest, TemperatureFlattensAndSharpens) {
  const std::vector<double> p = {0.6, 0.3, 0.1};
  constexpr int64_t kDraws = 50000;
  for (const double temperature : {0.5, 2.0}) {
    std::vector<double> expected;
    double sum = 0;
    for (const double value : p) sum += std::pow(value, 1 / temperature);
    for (const double value : p) expected.push_back(std::pow(value, 1 / temperature) / sum);
    const SamplingRow row = {.temperature = static_cast<float>(temperature), .seed = 8};
    // 2 degrees of freedom, once in a thousand.
    EXPECT_LT(chi_square(count(log_of(p), row, kDraws), expected, kDraws), 13.8);
  }
}

TEST_F(SamplerTest, ManyTokensAreDrawnEvenly) {
  // More than one block of the walk over the kept tokens.
  constexpr int64_t kVocab = 1200, kDraws = 12000;
  std::map<int32_t, int64_t> buckets;
  for (const auto& [id, num_draws] : count(std::vector<float>(kVocab, 3.0f), {.seed = 9}, kDraws)) {
    buckets[id / 100] += num_draws;
  }
  // 11 degrees of freedom, once in a thousand.
  EXPECT_LT(chi_square(buckets, std::vector<double>(12, 1.0 / 12), kDraws), 31.3);
}

TEST_F(SamplerTest, FiltersKeepTheProportionsOfWhatTheyKeep) {
  const std::vector<double> p = {0.1, 0.4, 0.2, 0.3};
  constexpr int64_t kDraws = 50000;
  const std::vector<double> kept = {0, 4.0 / 9, 2.0 / 9, 3.0 / 9};
  for (const SamplingRow& row :
       {SamplingRow{.top_k = 3, .seed = 10}, SamplingRow{.top_p = 0.85f, .seed = 11},
        SamplingRow{.min_p = 0.3f, .seed = 12}}) {
    EXPECT_LT(chi_square(count(log_of(p), row, kDraws), kept, kDraws), 13.8);
  }
}

TEST_F(SamplerTest, TopKKeepsTheBestTiesToTheLowerId) {
  const std::vector<float> logits = {1, 2, 1, 2, 1.5f, 1};
  EXPECT_EQ(support(logits, {.top_k = 1}), (Ids{1}));
  EXPECT_EQ(support(logits, {.top_k = 2}), (Ids{1, 3}));
  EXPECT_EQ(support(logits, {.top_k = 4}), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(support(logits, {.top_k = 5}), (Ids{0, 1, 2, 3, 4}));
  EXPECT_EQ(support(logits, {.top_k = 6}), (Ids{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(support(logits, {.top_k = 100}), (Ids{0, 1, 2, 3, 4, 5}));
}

TEST_F(SamplerTest, TopPKeepsTheSmallestSetThatReachesIt) {
  // Powers of two: their sums are exact, so the edges can be tried.
  const std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.25f),
                                     std::log(0.125f)};
  EXPECT_EQ(support(logits, {.top_p = 0.01f}), (Ids{1}));
  EXPECT_EQ(support(logits, {.top_p = 0.49f}), (Ids{1}));
  EXPECT_EQ(support(logits, {.top_p = 0.51f}), (Ids{1, 2}));
  EXPECT_EQ(support(logits, {.top_p = 0.74f}), (Ids{1, 2}));
  EXPECT_EQ(support(logits, {.top_p = 0.8f}), (Ids{0, 1, 2}));  // of the equals the lower id
  EXPECT_EQ(support(logits, {.top_p = 0.88f}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(support(logits, {.top_p = 1}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(support(std::vector<float>(8, 0), {.top_p = 0.5f}), (Ids{0, 1, 2, 3}));
}

TEST_F(SamplerTest, TopPAgreesWithASort) {
  // Nearly flat and full of ties, so that 8,000 draws find every kept token.
  std::mt19937 random(13);
  for (const int vocab_size : {3, 50, 300}) {
    for (const float top_p : {0.1f, 0.5f, 0.9f, 0.99f, 0.99999f}) {
      std::vector<float> logits(vocab_size);
      for (float& logit : logits) logit = static_cast<float>(random() % 8) / 8;
      std::vector<int32_t> order;
      double total = 0;
      for (int32_t i = 0; i < vocab_size; ++i) {
        order.push_back(i);
        total += std::exp(double{logits[i]});
      }
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
      Ids kept;
      double sum = 0;
      for (const int32_t id : order) {
        if (sum >= top_p * total) break;
        kept.insert(id);
        sum += std::exp(double{logits[id]});
      }
      Ids drawn;
      for (const auto& [id, num_draws] : count(logits, {.top_p = top_p, .seed = 14}, 8000)) {
        drawn.insert(id);
      }
      EXPECT_EQ(drawn, kept) << vocab_size << " tokens, " << top_p;
    }
  }
}

TEST_F(SamplerTest, MinPKeepsWhatIsLikelyEnoughBesideTheBest) {
  const std::vector<float> logits = log_of({0.5, 0.26, 0.24, 0.001});
  EXPECT_EQ(support(logits, {.min_p = 0.5f}), (Ids{0, 1}));
  EXPECT_EQ(support(logits, {.min_p = 0.4f}), (Ids{0, 1, 2}));
  EXPECT_EQ(support(logits, {.min_p = 1}), (Ids{0}));
  EXPECT_EQ(support({4, 4, 3.999f}, {.min_p = 1}), (Ids{0, 1}));
  // After temperature: at 2 the ratio of the second is sqrt(0.52) = 0.72.
  EXPECT_EQ(support(logits, {.temperature = 2, .min_p = 0.7f}), (Ids{0, 1}));
}

TEST_F(SamplerTest, FiltersActInTheirOrder) {
  // top_k leaves 0.4, 0.3, 0.2; of these top_p = 0.7 needs two: 0.4 / 0.9 alone is 0.44.
  const std::vector<float> logits = log_of({0.4, 0.3, 0.2, 0.1});
  EXPECT_EQ(support(logits, {.top_k = 3, .top_p = 0.7f}), (Ids{0, 1}));
  // Without top_k the same top_p needs two as well, but 0.75 three.
  EXPECT_EQ(support(logits, {.top_p = 0.75f}), (Ids{0, 1, 2}));
  EXPECT_EQ(support(logits, {.top_k = 2, .top_p = 0.75f}), (Ids{0, 1}));
  // min_p first: it leaves 0.4 and 0.3, of which the first holds 0.57.
  EXPECT_EQ(support(logits, {.top_p = 0.55f, .min_p = 0.7f}), (Ids{0}));
  EXPECT_EQ(support(logits, {.top_p = 0.55f}), (Ids{0, 1}));
}

TEST_F(SamplerTest, TopKOfOneEqualsGreedy) {
  std::mt19937 random(15);
  std::vector<float> logits(301);
  for (int round = 0; round < 20; ++round) {
    for (float& logit : logits) logit = static_cast<float>(random() % 100);
    const int32_t greedy = draw_one(logits, {.temperature = 0});
    EXPECT_EQ(draw_one(logits, {.temperature = 1.7f, .top_k = 1, .seed = random()}), greedy);
    EXPECT_EQ(draw_one(logits, {.temperature = 1.7f, .top_p = 1e-7f, .seed = random()}), greedy);
  }
}

TEST_F(SamplerTest, ExtremeTemperaturesGiveTheBestOrAll) {
  const std::vector<float> logits = {1, 3, -2, 2.99f, -kInfinity};
  for (const float tiny : {1e-3f, 1e-20f, 1e-38f, std::numeric_limits<float>::denorm_min()}) {
    EXPECT_EQ(support(logits, {.temperature = tiny}), (Ids{1})) << tiny;
  }
  for (const float huge : {1e6f, 1e30f, std::numeric_limits<float>::max()}) {
    EXPECT_EQ(support(logits, {.temperature = huge}), (Ids{0, 1, 2, 3})) << huge;
    EXPECT_EQ(support(logits, {.temperature = huge, .min_p = 0.5f}), (Ids{0, 1, 2, 3})) << huge;
  }
}

TEST_F(SamplerTest, BiasAddsAndForbids) {
  const std::vector<float> logits = {5, 4, 0};
  const std::vector<LogitBias> forbid = {{0, -kInfinity}};
  EXPECT_EQ(draw_one(logits, {.temperature = 0, .logit_bias = forbid}), 1);
  EXPECT_EQ(support(logits, {.temperature = 3, .logit_bias = forbid}), (Ids{1, 2}));
  EXPECT_EQ(support(logits, {.temperature = 3, .top_k = 3, .logit_bias = forbid}), (Ids{1, 2}));
  const std::vector<LogitBias> twice = {{2, 3}, {2, 2.5f}};  // they add up
  EXPECT_EQ(draw_one(logits, {.temperature = 0, .logit_bias = twice}), 2);
  const std::vector<LogitBias> all = {{0, -kInfinity}, {1, -kInfinity}, {2, -kInfinity}};
  EXPECT_EQ(draw_one(logits, {.logit_bias = all}), 0);
}

TEST_F(SamplerTest, RepetitionPenaltyActsOncePerTokenOnPromptAndOutput) {
  const std::vector<int32_t> prompt = {0, 0, 0};
  const std::vector<int32_t> output = {0, 2};
  // 4 becomes 2, not 0.25; -1 becomes -2.
  SamplingRow row = {.temperature = 0, .repetition_penalty = 2, .prompt_ids = prompt};
  EXPECT_EQ(draw_one({4, 1.9f}, row), 0);
  EXPECT_EQ(draw_one({4, 2.1f}, row), 1);
  row.output_ids = output;
  EXPECT_EQ(draw_one({4, 1.9f, -9}, row), 0);
  EXPECT_EQ(draw_one({-9, -1.9f, -1}, row), 1);
  EXPECT_EQ(draw_one({-9, -2.1f, -1}, row), 2);
  // Below 1 it rewards.
  row.repetition_penalty = 0.5f;
  EXPECT_EQ(draw_one({4, 7.9f, 0}, row), 0);
}

TEST_F(SamplerTest, PresenceAndFrequencyPenaltiesActOnTheOutputAlone) {
  const std::vector<int32_t> prompt = {1, 1, 1};
  const std::vector<int32_t> output = {0, 0, 0, 2};
  SamplingRow row = {.temperature = 0, .prompt_ids = prompt, .output_ids = output};
  row.presence_penalty = 1;
  EXPECT_EQ(draw_one({4, 2.9f, 0}, row), 0);
  EXPECT_EQ(draw_one({4, 3.1f, 0}, row), 1);
  row.presence_penalty = 0;
  row.frequency_penalty = 0.5f;
  EXPECT_EQ(draw_one({4, 2.4f, 0}, row), 0);
  EXPECT_EQ(draw_one({4, 2.6f, 0}, row), 1);
  row.presence_penalty = 1;  // 4 - 1 - 1.5
  EXPECT_EQ(draw_one({4, 1.4f, 0}, row), 0);
  EXPECT_EQ(draw_one({4, 1.6f, 0}, row), 1);
  row.presence_penalty = -3;  // rewards
  EXPECT_EQ(draw_one({4, 5.4f, 0}, row), 0);
}

TEST_F(SamplerTest, PenaltiesFollowTheBias) {
  // (1 + 2) / 2 - 0.5 = 1: repetition after the bias, presence after repetition.
  const std::vector<LogitBias> bias = {{0, 2}};
  const std::vector<int32_t> output = {0};
  const SamplingRow row = {.temperature = 0,
                           .repetition_penalty = 2,
                           .presence_penalty = 0.5f,
                           .logit_bias = bias,
                           .output_ids = output};
  EXPECT_EQ(draw_one({1, 0.99f}, row), 0);
  EXPECT_EQ(draw_one({1, 1.01f}, row), 1);
}

TEST_F(SamplerTest, ADrawDependsOnItsRowAlone) {
  std::mt19937 random(16);
  std::vector<float> logits(1000);
  for (float& logit : logits) logit = static_cast<float>(random() % 1000) / 100;
  const std::vector<int32_t> output = {1, 2, 3, 500};
  std::vector<SamplingRow> rows(40);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].temperature = static_cast<float>(i % 5);
    rows[i].top_k = static_cast<int>(i % 3) * 100;
    rows[i].top_p = i % 4 == 0 ? 1.0f : 0.95f;
    rows[i].frequency_penalty = i % 7 == 0 ? 1.0f : 0.0f;
    rows[i].output_ids = output;
    rows[i].seed = i / 3;
    rows[i].draw_idx = i;
  }
  const std::vector<int32_t> together = draw(logits, rows);
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(draw_one(logits, rows[i]), together[i]) << i;
  std::vector<SamplingRow> reversed(rows.rbegin(), rows.rend());
  std::vector<int32_t> backwards = draw(logits, reversed);
  std::ranges::reverse(backwards);
  EXPECT_EQ(backwards, together);
}

TEST_F(SamplerTest, SeedAndDrawIndexChangeTheDraw) {
  const std::vector<float> flat(1000, 0.0f);
  Ids by_seed, by_draw;
  for (uint64_t i = 0; i < 20; ++i) {
    by_seed.insert(draw_one(flat, {.seed = i}));
    by_draw.insert(draw_one(flat, {.draw_idx = i}));
  }
  EXPECT_GT(by_seed.size(), 15u);
  EXPECT_GT(by_draw.size(), 15u);
}

TEST_F(SamplerTest, DefinesRowsThatAreNotNumbers) {
  EXPECT_EQ(draw_one({kNan, 1, kNan, 2}, {.temperature = 0}), 3);
  EXPECT_EQ(support({kNan, 1, kNan, 2}, {.top_k = 3}), (Ids{1, 3}));
  EXPECT_EQ(support({kNan, 1, kNan, 2}, {.top_p = 0.999f}), (Ids{1, 3}));
  EXPECT_EQ(draw_one({kNan, kNan, -kInfinity}, {}), 0);
  const std::vector<LogitBias> forbid = {{1, -kInfinity}, {0, -kInfinity}};
  EXPECT_EQ(draw_one({kNan, kNan, -kInfinity}, {.logit_bias = forbid}), 2);
  EXPECT_EQ(support({kInfinity, 3, kInfinity}, {}), (Ids{0, 2}));
  EXPECT_EQ(draw_one({3, kInfinity}, {.temperature = 0}), 1);
}

TEST_F(SamplerTest, LeavesTheLogitsAsTheyAre) {
  std::vector<float> logits = {1, 2, 3};
  const std::vector<float> before = logits;
  const std::vector<LogitBias> bias = {{0, 5}};
  const std::vector<SamplingRow> rows = {{.top_k = 2, .logit_bias = bias}};
  std::vector<double> scratch(sample_scratch_bytes(3, pool_.num_threads()) / 8 + 8);
  int32_t id = -1;
  sample({dense(logits.data(), DType::kF32, 1, 3), rows, &id}, pool_,
         std::as_writable_bytes(std::span(scratch)));
  EXPECT_EQ(id, 0);
  EXPECT_EQ(logits, before);
}

TEST_F(SamplerTest, RefusesSettingsOutsideTheirRanges) {
  const std::vector<float> logits = {0, 1};
  const std::vector<int32_t> unknown = {2};
  const std::vector<LogitBias> bias = {{-1, 0}};
  for (const SamplingRow& row :
       {SamplingRow{.temperature = -1}, SamplingRow{.temperature = kNan},
        SamplingRow{.temperature = kInfinity}, SamplingRow{.top_k = -1}, SamplingRow{.top_p = 0},
        SamplingRow{.top_p = 1.1f}, SamplingRow{.min_p = -0.1f},
        SamplingRow{.repetition_penalty = 0}, SamplingRow{.presence_penalty = kNan},
        SamplingRow{.logit_bias = bias},
        SamplingRow{.repetition_penalty = 2, .prompt_ids = unknown},
        SamplingRow{.frequency_penalty = 1, .output_ids = unknown}}) {
    EXPECT_THROW(draw_one(logits, row), std::logic_error);
  }
  // Histories that no setting reads are not looked at.
  EXPECT_NO_THROW(draw_one(logits, {.prompt_ids = unknown, .output_ids = unknown}));
}

}  // namespace
}  // namespace augur::cpu
