#include "engine/model/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace augur {
namespace {

struct FrequencyCase {
  const char* name;
  RopeConfig rope;
  std::vector<double> expected;  // printed by data/rope_values.py
};

class RopeFrequencies : public ::testing::TestWithParam<FrequencyCase> {};

TEST_P(RopeFrequencies, AreThoseOfThePapers) {
  const std::vector<double> frequencies = rope_frequencies(GetParam().rope);
  ASSERT_EQ(frequencies.size(), GetParam().expected.size());
  for (size_t i = 0; i < frequencies.size(); ++i) {
    EXPECT_NEAR(frequencies[i] / GetParam().expected[i], 1, 1e-11) << "pair " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Rope,
    RopeFrequencies,
    ::testing::Values(
        FrequencyCase{
            "Plain",
            {.theta = 1e6, .rotary_dim = 8},
            {1.000000000000e+00, 3.162277660168e-02, 1.000000000000e-03, 3.162277660168e-05}},
        FrequencyCase{
            "Linear",
            {.theta = 1e4, .rotary_dim = 8, .scaling = RopeScaling::kLinear, .factor = 4},
            {2.500000000000e-01, 2.500000000000e-02, 2.500000000000e-03, 2.500000000000e-04}},
        FrequencyCase{
            "Llama3",
            {.theta = 5e5,
             .rotary_dim = 16,
             .scaling = RopeScaling::kLlama3,
             .factor = 8,
             .original_max_position_embeddings = 8192,
             .low_freq_factor = 1,
             .high_freq_factor = 4},
            {1.000000000000e+00, 1.939227447487e-01, 3.760603093086e-02, 7.292664737217e-03,
             5.248461609930e-04, 3.428102195953e-05, 6.647869871181e-06, 1.289173172152e-06}},
        FrequencyCase{
            "Llama3Small",
            {.theta = 5e5,
             .rotary_dim = 16,
             .scaling = RopeScaling::kLlama3,
             .factor = 8,
             .original_max_position_embeddings = 64,
             .low_freq_factor = 1,
             .high_freq_factor = 4},
            {1.000000000000e+00, 7.940300917921e-02, 4.700753866358e-03, 9.115830921521e-04,
             1.767766952966e-04, 3.428102195953e-05, 6.647869871181e-06, 1.289173172152e-06}},
        FrequencyCase{
            "Yarn",
            {.theta = 1e4,
             .rotary_dim = 16,
             .scaling = RopeScaling::kYarn,
             .factor = 4,
             .original_max_position_embeddings = 4096},
            {1.000000000000e+00, 3.162277660168e-01, 1.000000000000e-01, 2.569350598887e-02,
             6.250000000000e-03, 1.383496476324e-03, 2.500000000000e-04, 7.905694150421e-05}},
        FrequencyCase{
            "YarnUnrounded",
            {.theta = 1.5e5,
             .rotary_dim = 16,
             .scaling = RopeScaling::kYarn,
             .factor = 32,
             .original_max_position_embeddings = 4096,
             .rounds_ramp_ends = false},
            {1.000000000000e+00, 2.254180002029e-01, 5.081327481546e-02, 6.794959489732e-03,
             4.564839192232e-04, 1.818833668169e-05, 4.099978481803e-06, 9.242089502428e-07}},
        FrequencyCase{
            "YarnWithARampOfNoLength",
            {.theta = 5e4,
             .rotary_dim = 16,
             .scaling = RopeScaling::kYarn,
             .factor = 32,
             .original_max_position_embeddings = 4096,
             .beta_fast = 1,
             .beta_slow = 1,
             .rounds_ramp_ends = false},
            {1.000000000000e+00, 2.586001363063e-01, 6.687403049764e-02, 1.729363340204e-02,
             4.472135955000e-03, 3.614046773573e-05, 9.345929882633e-06, 2.416858741558e-06}}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(RopeTable, HoldsCosinesAndSinesByPosition) {
  const RopeTableData table = make_rope_table({.theta = 1e4, .rotary_dim = 4}, 100);
  ASSERT_EQ(table.cos.size(), 200u);
  EXPECT_EQ(table.num_bytes(), 2 * 200 * 4);
  EXPECT_EQ(table.cos[0], 1.0f);
  EXPECT_EQ(table.sin[0], 0.0f);
  // Position 50, pairs of frequency 1 and 1/100: cos and sin of 50 and 0.5 radians.
  EXPECT_FLOAT_EQ(table.cos[100], 0.96496603f);
  EXPECT_FLOAT_EQ(table.sin[100], -0.26237485f);
  EXPECT_FLOAT_EQ(table.cos[101], 0.87758256f);
  EXPECT_FLOAT_EQ(table.sin[101], 0.47942554f);
}

TEST(RopeTable, FoldsYarnsAttentionFactorIn) {
  RopeConfig rope = {.theta = 1e4,
                     .rotary_dim = 4,
                     .scaling = RopeScaling::kYarn,
                     .factor = 4,
                     .original_max_position_embeddings = 4096};
  EXPECT_NEAR(rope_attention_factor(rope), 1.138629436111989, 1e-15);
  const RopeTableData table = make_rope_table(rope, 3);
  for (size_t i = 0; i < table.cos.size(); ++i) {
    EXPECT_NEAR(std::hypot(table.cos[i], table.sin[i]), 1.138629436, 1e-6) << i;
  }
  rope.attention_factor = 1.5;
  EXPECT_FLOAT_EQ(make_rope_table(rope, 1).cos[0], 1.5f);
  rope.scaling = RopeScaling::kLinear;
  EXPECT_EQ(rope_attention_factor(rope), 1);
}

TEST(RopeTable, MayBeEmptyAndRequiresAnEvenDimension) {
  EXPECT_TRUE(make_rope_table({.rotary_dim = 4}, 0).cos.empty());
  EXPECT_THROW(make_rope_table({.rotary_dim = 3}, 1), std::logic_error);
  EXPECT_THROW(make_rope_table({.rotary_dim = 0}, 1), std::logic_error);
  EXPECT_THROW(make_rope_table({.rotary_dim = 4}, -1), std::logic_error);
}

}  // namespace
}  // namespace augur
