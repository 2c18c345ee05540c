#include "cache/route_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <vector>

namespace augur {
namespace {

constexpr int kHidden = 32;
constexpr int kExperts = 16;
constexpr int kTopK = 2;

RouteCacheShape shape_of(std::vector<int> moe_layers) {
  return {kHidden, kExperts, kTopK, std::move(moe_layers)};
}

/// Random projections keep the tests' directions apart without a sample.
RouteCacheConfig config_of(RouteCacheMode mode, int64_t capacity = 64) {
  RouteCacheConfig config;
  config.mode = mode;
  config.capacity = capacity;
  config.projection = ProjectionKind::kRandom;
  config.dims = 32;
  config.num_later_layers = 2;
  config.max_rows = 8;
  return config;
}

std::vector<float> random_state(uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> state(kHidden);
  for (float& value : state) value = normal(random);
  return state;
}

/// One layer's gate for some rows.
struct Gate {
  std::vector<float> states;
  std::vector<int32_t> experts;
  std::vector<float> weights;

  int64_t num_rows() const { return std::ssize(states) / kHidden; }
  void add(const std::vector<float>& state, std::array<int32_t, kTopK> chosen) {
    states.insert(states.end(), state.begin(), state.end());
    experts.insert(experts.end(), chosen.begin(), chosen.end());
    weights.insert(weights.end(), {0.75f, 0.25f + static_cast<float>(chosen[0])});
  }
  Tensor input() { return dense(states.data(), DType::kF32, num_rows(), kHidden); }
  RoutingView view(int layer) {
    return {layer, num_rows(), kTopK, experts.data(), weights.data(), input(), {}};
  }
};

class RouteCacheTest : public ::testing::Test {
 protected:
  static void observe(RouteCache& cache,
                      int layer,
                      const std::vector<float>& state,
                      std::array<int32_t, kTopK> chosen) {
    Gate gate;
    gate.add(state, chosen);
    cache.observe(gate.view(layer));
  }
  static bool is_hit(RouteCache& cache, int layer, const std::vector<float>& state) {
    const int64_t before = cache.report(layer).counts.num_hits;
    cache.begin_step();
    observe(cache, layer, state, {0, 1});
    return cache.report(layer).counts.num_hits > before;
  }
  /// Looks up one row; learns what the gate chose unless it was served.
  static RowOutcome serve(RouteCache& cache,
                          int layer,
                          const std::vector<float>& state,
                          std::array<int32_t, kTopK> chosen) {
    Gate gate;
    gate.add(state, chosen);
    std::array<RowOutcome, 1> outcome{};
    std::array<int32_t, kTopK> experts = chosen;
    std::array<float, kTopK> weights{0.75f, 0.25f + static_cast<float>(chosen[0])};
    cache.begin_step();
    cache.try_serve(layer, gate.input(), experts.data(), weights.data(), outcome);
    cache.learn(layer, 1, experts.data(), weights.data());
    return outcome[0];
  }
};

TEST_F(RouteCacheTest, AHitForetellsTheNextLayersOfTheSameToken) {
  RouteCache cache(shape_of({1, 2, 4}), config_of(RouteCacheMode::kPrefetch));
  const std::vector<float> state = random_state(1);
  cache.begin_step();
  observe(cache, 1, state, {3, 4});
  EXPECT_TRUE(cache.hint(0, 2, 1).empty()) << "nothing was known before";
  observe(cache, 2, random_state(2), {5, 6});
  observe(cache, 4, random_state(3), {7, 8});

  cache.begin_step();
  EXPECT_TRUE(cache.hint(0, 2, 1).empty()) << "nothing was observed in this step";
  observe(cache, 1, state, {3, 4});
  const auto hint = [&](int layer, int distance) {
    const auto experts = cache.hint(0, layer, distance);
    return std::vector<int32_t>(experts.begin(), experts.end());
  };
  EXPECT_EQ(hint(2, 1), (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(hint(4, 2), (std::vector<int32_t>{7, 8}));
  EXPECT_TRUE(hint(4, 1).empty()) << "layer 2 was not observed yet";
  EXPECT_TRUE(cache.hint(1, 2, 1).empty()) << "there is no such row";
  observe(cache, 2, random_state(99), {5, 6});
  EXPECT_TRUE(hint(4, 1).empty()) << "a state unlike any";
}

TEST_F(RouteCacheTest, RowsOfAStepDoNotMixUp) {
  RouteCache cache(shape_of({0, 1}), config_of(RouteCacheMode::kPrefetch));
  for (int step = 0; step < 3; ++step) {
    Gate first, second;
    for (int row = 0; row < 5; ++row) {
      // In another order every time: a row's past is found by its state alone.
      const int which = (row + 2 * step) % 5;
      first.add(random_state(which), {which, which + 1});
      second.add(random_state(10 + which), {which + 5, which + 6});
    }
    cache.begin_step();
    cache.observe(first.view(0));
    for (int row = 0; row < 5; ++row) {
      const auto hint = cache.hint(row, 1, 1);
      if (step == 0) {
        EXPECT_TRUE(hint.empty());
      } else {
        ASSERT_EQ(hint.size(), 2u);
        EXPECT_EQ(hint[0], (row + 2 * step) % 5 + 5);
      }
    }
    cache.observe(second.view(1));
  }
  EXPECT_EQ(cache.total().num_inserts, 10) << "the same states are renewed, not kept twice";
  EXPECT_EQ(cache.total().num_renewals, 20);
  EXPECT_EQ(cache.total().agreement(), 1);
}

TEST_F(RouteCacheTest, TheSameStateTwiceInAStepIsOneEntry) {
  RouteCache cache(shape_of({0}), config_of(RouteCacheMode::kPrefetch));
  Gate gate;
  for (int row = 0; row < 4; ++row) gate.add(random_state(7), {1, 2});
  cache.begin_step();
  cache.observe(gate.view(0));
  EXPECT_EQ(cache.total().num_inserts, 1);
  EXPECT_EQ(cache.total().num_hits, 0);
}

TEST_F(RouteCacheTest, TheLeastRecentlyUsedEntryGoesFirst) {
  RouteCache cache(shape_of({0, 1}), config_of(RouteCacheMode::kPrefetch, /*capacity=*/6));
  EXPECT_EQ(cache.layer_capacity(), 3);
  for (const uint32_t seed : {1, 2, 3, 1}) (void)is_hit(cache, 0, random_state(seed));
  EXPECT_FALSE(is_hit(cache, 0, random_state(4))) << "takes the place of 2";
  EXPECT_TRUE(is_hit(cache, 0, random_state(3)));
  EXPECT_TRUE(is_hit(cache, 0, random_state(1)));
  EXPECT_TRUE(is_hit(cache, 0, random_state(4)));
  EXPECT_FALSE(is_hit(cache, 0, random_state(2)));
  EXPECT_EQ(cache.report(0).counts.num_evictions, 2);
  EXPECT_FALSE(is_hit(cache, 1, random_state(1))) << "layers have their own entries";
}

TEST_F(RouteCacheTest, ServingIsAUseOfTheEntry) {
  RouteCacheConfig config = config_of(RouteCacheMode::kServe, /*capacity=*/3);
  config.lowest_threshold = config.similarity_threshold;  // it never moves
  RouteCache cache(shape_of({0}), config);
  for (const uint32_t seed : {1, 2, 3}) (void)serve(cache, 0, random_state(seed), {3, 4});
  for (int i = 0; i < SimilarityThreshold::kChecksPerDecision; ++i) {
    (void)serve(cache, 0, random_state(3), {3, 4});
  }
  ASSERT_EQ(serve(cache, 0, random_state(1), {3, 4}), RowOutcome::kServed);
  EXPECT_EQ(serve(cache, 0, random_state(4), {3, 4}), RowOutcome::kMiss) << "takes 2's place";
  EXPECT_NE(serve(cache, 0, random_state(1), {3, 4}), RowOutcome::kMiss);
  EXPECT_EQ(serve(cache, 0, random_state(2), {3, 4}), RowOutcome::kMiss);
}

TEST_F(RouteCacheTest, AnEntryIsNotToldWhatAnotherTokenChose) {
  RouteCache cache(shape_of({0, 1}), config_of(RouteCacheMode::kPrefetch, /*capacity=*/2));
  Gate first, second;
  first.add(random_state(1), {1, 2});
  first.add(random_state(2), {3, 4});  // takes the only place of layer 0
  second.add(random_state(3), {5, 6});
  second.add(random_state(4), {-1, -1});
  cache.begin_step();
  cache.observe(first.view(0));
  cache.observe(second.view(1));
  cache.begin_step();
  observe(cache, 0, random_state(2), {3, 4});
  EXPECT_EQ(cache.total().num_hits, 1);
  EXPECT_TRUE(cache.hint(0, 1, 1).empty()) << "5 and 6 followed the state that had to go";
}

TEST_F(RouteCacheTest, ServesWhatTheGateChoseAfterTheThresholdIsProven) {
  RouteCache cache(shape_of({0}), config_of(RouteCacheMode::kServe));
  const std::vector<float> state = random_state(1);
  EXPECT_EQ(serve(cache, 0, state, {3, 4}), RowOutcome::kMiss);
  for (int i = 0; i < SimilarityThreshold::kChecksPerDecision; ++i) {
    EXPECT_EQ(serve(cache, 0, state, {3, 4}), RowOutcome::kCheck) << i;
  }
  // The misses until here let it try a lower threshold once, which must be proven too.
  int num_served = 0;
  for (int i = 0; i < 200; ++i) {
    num_served += serve(cache, 0, state, {3, 4}) == RowOutcome::kServed ? 1 : 0;
  }
  EXPECT_GT(num_served, 100);
  Gate gate;
  gate.add(state, {0, 0});
  std::array<RowOutcome, 1> outcome{};
  std::array<int32_t, kTopK> experts{};
  std::array<float, kTopK> weights{};
  do {
    cache.begin_step();
    cache.try_serve(0, gate.input(), experts.data(), weights.data(), outcome);
  } while (outcome[0] != RowOutcome::kServed);
  EXPECT_EQ(experts, (std::array<int32_t, kTopK>{3, 4}));
  EXPECT_EQ(weights, (std::array<float, kTopK>{0.75f, 3.25f}));
}

TEST_F(RouteCacheTest, ChecksAboutTheConfiguredShareOfProvenHits) {
  RouteCacheConfig config = config_of(RouteCacheMode::kServe);
  config.lowest_threshold = config.similarity_threshold;  // it never moves
  RouteCache cache(shape_of({0}), config);
  const std::vector<float> state = random_state(1);
  for (int i = 0; i <= SimilarityThreshold::kChecksPerDecision; ++i) {
    (void)serve(cache, 0, state, {3, 4});
  }
  const int64_t before = cache.total().num_checks;
  constexpr int kHits = 8000;
  for (int i = 0; i < kHits; ++i) (void)serve(cache, 0, state, {3, 4});
  const int64_t num_checks = cache.total().num_checks - before;
  EXPECT_EQ(cache.total().num_served, kHits - num_checks);
  // 500 expected of a binomial with a deviation of 22.
  EXPECT_NEAR(static_cast<double>(num_checks), kHits / 16.0, 100);
}

TEST_F(RouteCacheTest, SwitchesALayerOffWhoseChoicesDisagree) {
  RouteCache cache(shape_of({0, 3}), config_of(RouteCacheMode::kServe));
  std::mt19937 random(1);
  const std::vector<float> state = random_state(1);
  int num_served = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto expert = static_cast<int32_t>(random() % (kExperts - 1));
    const RowOutcome outcome = serve(cache, 0, state, {expert, expert + 1});
    num_served += outcome == RowOutcome::kServed ? 1 : 0;
    (void)serve(cache, 3, state, {3, 4});
  }
  EXPECT_EQ(num_served, 0) << "no threshold was ever proven";
  EXPECT_TRUE(cache.report(0).is_switched_off);
  EXPECT_FALSE(cache.report(3).is_switched_off) << "layers are judged one by one";
  EXPECT_GT(cache.report(3).counts.num_served, 1000);
  EXPECT_EQ(cache.num_switched_off(), 1);
  const int64_t num_look_ups = cache.report(0).counts.num_look_ups;
  EXPECT_EQ(serve(cache, 0, state, {3, 4}), RowOutcome::kMiss);
  EXPECT_EQ(cache.report(0).counts.num_look_ups, num_look_ups) << "it costs nothing any more";
}

TEST_F(RouteCacheTest, StopsServingWhenChoicesChange) {
  RouteCache cache(shape_of({0}), config_of(RouteCacheMode::kServe));
  const std::vector<float> state = random_state(1);
  for (int i = 0; i < 1000; ++i) (void)serve(cache, 0, state, {3, 4});
  EXPECT_GT(cache.total().num_served, 500);
  std::mt19937 random(2);
  int num_wrong = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto expert = static_cast<int32_t>(5 + random() % 10);
    const RowOutcome outcome = serve(cache, 0, state, {expert, expert + 1});
    num_wrong += outcome == RowOutcome::kServed ? 1 : 0;
  }
  EXPECT_TRUE(cache.report(0).is_switched_off);
  // At most a decision's worth of checks, each after about 16 hits.
  EXPECT_LT(num_wrong, 2 * 16 * SimilarityThreshold::kChecksPerDecision);
}

TEST_F(RouteCacheTest, PrefetchNeverServesAndChecksEveryHit) {
  RouteCache cache(shape_of({0}), config_of(RouteCacheMode::kPrefetch));
  for (int i = 0; i < 300; ++i) {
    EXPECT_NE(serve(cache, 0, random_state(i % 10), {3, 4}), RowOutcome::kServed);
  }
  EXPECT_EQ(cache.total().num_look_ups, 300);
  EXPECT_EQ(cache.total().num_checks, cache.total().num_hits);
  EXPECT_EQ(cache.total().num_hits, 290);
  EXPECT_GT(cache.total().look_up_us, 0);
}

TEST_F(RouteCacheTest, FitsItsProjectionsToTheFirstRowsInTurns) {
  RouteCacheConfig config = config_of(RouteCacheMode::kPrefetch);
  config.projection = ProjectionKind::kPca;
  config.dims = 8;
  config.num_samples = 20;
  config.max_sample_bytes = 20 * kHidden * 4;  // one layer at a time
  RouteCache cache(shape_of({0, 1}), config);
  EXPECT_LE(config.max_sample_bytes, RouteCache::max_bytes(cache.shape(), config));
  for (int step = 0; step < 8; ++step) {
    EXPECT_EQ(cache.report(0).is_ready, step >= 4) << step;
    EXPECT_EQ(cache.report(1).is_ready, step >= 7) << "layer 1 begins in the step layer 0 ends";
    EXPECT_EQ(cache.projections().empty(), step < 7);
    Gate gate;
    for (int row = 0; row < 5; ++row) gate.add(random_state(step * 5 + row), {1, 2});
    cache.begin_step();
    cache.observe(gate.view(0));
    cache.observe(gate.view(1));
  }
  EXPECT_EQ(cache.report(0).counts.num_sampled_rows, 20);
  EXPECT_TRUE(is_hit(cache, 0, random_state(39))) << "of the last step";

  RouteCache other(cache.shape(), config);
  other.set_projections(cache.projections());
  EXPECT_TRUE(other.report(1).is_ready);
  EXPECT_FALSE(is_hit(other, 0, random_state(39)));
  EXPECT_TRUE(is_hit(other, 0, random_state(39)));
}

TEST_F(RouteCacheTest, LooksAtNoMoreRowsThanConfigured) {
  RouteCache cache(shape_of({0}), config_of(RouteCacheMode::kServe));
  for (int i = 0; i < 100; ++i) (void)serve(cache, 0, random_state(1), {3, 4});
  Gate gate;
  for (int row = 0; row < 12; ++row) gate.add(random_state(1), {3, 4});
  std::array<RowOutcome, 12> outcomes{};
  cache.begin_step();
  cache.try_serve(0, gate.input(), gate.experts.data(), gate.weights.data(), outcomes);
  for (int row = 0; row < 12; ++row) EXPECT_EQ(outcomes[row] == RowOutcome::kMiss, row >= 8);
  const int64_t before = cache.total().num_inserts + cache.total().num_renewals;
  cache.learn(0, 12, gate.experts.data(), gate.weights.data());
  const auto num_checked = std::count(outcomes.begin(), outcomes.end(), RowOutcome::kCheck);
  EXPECT_EQ(cache.total().num_inserts + cache.total().num_renewals, before + num_checked);
}

TEST_F(RouteCacheTest, IgnoresRowsThatPadAndStatesWithoutDirection) {
  RouteCache cache(shape_of({0}), config_of(RouteCacheMode::kPrefetch));
  Gate gate;
  gate.add(random_state(1), {-1, -1});
  gate.add(std::vector<float>(kHidden, NAN), {1, 2});
  gate.add(std::vector<float>(kHidden, 0.0f), {1, 2});
  for (int i = 0; i < 2; ++i) {
    cache.begin_step();
    cache.observe(gate.view(0));
  }
  EXPECT_EQ(cache.total().num_inserts, 0);
  EXPECT_EQ(cache.total().num_hits, 0);
}

TEST_F(RouteCacheTest, IsDeterministic) {
  const auto run = [] {
    RouteCacheConfig config = config_of(RouteCacheMode::kServe, 40);
    RouteCache cache(shape_of({0, 1}), config);
    std::mt19937 random(3);
    std::vector<int> outcomes;
    for (int i = 0; i < 2000; ++i) {
      const auto which = static_cast<int32_t>(random() % 14);
      outcomes.push_back(
          static_cast<int>(serve(cache, 0, random_state(which), {which, which + 1})));
      outcomes.push_back(
          static_cast<int>(serve(cache, 1, random_state(which), {which, which + 1})));
    }
    return outcomes;
  };
  EXPECT_EQ(run(), run());
}

TEST_F(RouteCacheTest, AnEmptyStepAndAnOffCacheDoNothing) {
  RouteCache cache(shape_of({0}), config_of(RouteCacheMode::kPrefetch));
  Gate none;
  cache.begin_step();
  cache.observe(none.view(0));
  EXPECT_EQ(cache.total().num_look_ups, 0);

  RouteCache off(shape_of({0}), config_of(RouteCacheMode::kOff));
  EXPECT_EQ(serve(off, 0, random_state(1), {1, 2}), RowOutcome::kMiss);
  EXPECT_TRUE(off.hint(0, 0, 1).empty());
  EXPECT_EQ(off.total().num_look_ups, 0);
  EXPECT_EQ(RouteCache::max_bytes(off.shape(), off.config()), 0);
}

TEST_F(RouteCacheTest, RefusesWhatItsRequirementsForbid) {
  RouteCacheConfig config = config_of(RouteCacheMode::kPrefetch);
  EXPECT_THROW(RouteCache(shape_of({}), config), std::logic_error);
  EXPECT_THROW(RouteCache(shape_of({2, 1}), config), std::logic_error);
  EXPECT_THROW(RouteCache(shape_of({1, 1}), config), std::logic_error);
  RouteCache cache(shape_of({1}), config);
  Gate gate;
  gate.add(random_state(1), {1, 2});
  EXPECT_THROW(cache.observe(gate.view(0)), std::logic_error) << "a dense layer";
  EXPECT_THROW(cache.learn(1, 1, gate.experts.data(), gate.weights.data()), std::logic_error);
  EXPECT_THROW(cache.set_projections({Projection::random(kHidden, 8, 1)}), std::logic_error);
  config.dims = 2;
  EXPECT_THROW(RouteCache(shape_of({1}), config), std::logic_error);
}

}  // namespace
}  // namespace augur
