// The route caches as predictors.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "prefetch/exact_routes_predictor.h"
#include "prefetch/route_cache_predictor.h"

namespace augur {
namespace {

constexpr int kHidden = 16;
constexpr int kTopK = 2;
const std::vector<int> kLayers = {1, 2, 3};

// One sequence of one token a step; its state in a layer depends on the token alone.
class RoutePredictorsTest : public ::testing::Test {
 protected:
  void begin(Predictor& predictor, int32_t token, int32_t position, int64_t sequence = 1) {
    tokens_ = {token};
    positions_ = {position};
    sequences_ = {0};
    ids_ = {sequence};
    predictor.on_step({1, 1, tokens_, positions_, sequences_, ids_});
  }
  void route(Predictor& predictor, int layer, int state, std::vector<int32_t> experts) {
    std::mt19937 random(static_cast<uint32_t>(100 * layer + state));
    std::normal_distribution<float> normal;
    std::vector<float> input(kHidden);
    for (float& value : input) value = normal(random);
    const std::vector<float> weights = {0.5f, 0.5f};
    predictor.on_routing({layer,
                          1,
                          kTopK,
                          experts.data(),
                          weights.data(),
                          dense(input.data(), DType::kF32, 1, kHidden),
                          {}});
  }
  std::vector<int32_t> predict(Predictor& predictor, int layer, int width) {
    std::vector<int32_t> experts(width, -1);
    predictor.predict(layer, {experts, 1, width});
    return experts;
  }

  std::vector<int32_t> tokens_, positions_, sequences_;
  std::vector<int64_t> ids_;
};

RouteCacheConfig random_projection() {
  RouteCacheConfig config;
  config.projection = ProjectionKind::kRandom;
  config.dims = 16;
  return config;
}

TEST_F(RoutePredictorsTest, RouteCacheRanksTheNearestLayersHintFirst) {
  RouteCache cache({kHidden, /*num_experts=*/10, kTopK, kLayers}, random_projection());
  RouteCachePredictor predictor(cache);
  EXPECT_EQ(predictor.name(), "route_cache");
  // State 5 of layer 1 was followed by 3, 4 two layers on; state 6 of layer 2 by 4, 7.
  begin(predictor, 0, 0);
  EXPECT_EQ(predict(predictor, 1, 3), (std::vector<int32_t>{-1, -1, -1}));
  route(predictor, 1, 5, {0, 1});
  route(predictor, 2, 9, {1, 2});
  route(predictor, 3, 9, {3, 4});
  begin(predictor, 0, 1);
  route(predictor, 1, 8, {8, 9});
  route(predictor, 2, 6, {5, 6});
  route(predictor, 3, 8, {4, 7});

  begin(predictor, 0, 2);
  route(predictor, 1, 5, {0, 1});
  EXPECT_EQ(predict(predictor, 2, 4), (std::vector<int32_t>{1, 2, -1, -1}));
  EXPECT_EQ(predict(predictor, 3, 4), (std::vector<int32_t>{3, 4, -1, -1}));
  route(predictor, 2, 6, {5, 6});
  EXPECT_EQ(predict(predictor, 3, 4), (std::vector<int32_t>{4, 7, 3, -1}));
  EXPECT_EQ(predict(predictor, 3, 1), (std::vector<int32_t>{4}));
}

TEST_F(RoutePredictorsTest, RouteCacheOnlyListensWhenItDoesNotServe) {
  RouteCacheConfig config = random_projection();
  config.mode = RouteCacheMode::kServe;
  RouteCache cache({kHidden, 10, kTopK, kLayers}, config);
  RouteCachePredictor predictor(cache);
  begin(predictor, 0, 0);
  route(predictor, 1, 5, {0, 1});
  EXPECT_EQ(cache.total().num_look_ups, 0);
}

TEST_F(RoutePredictorsTest, ExactRoutesKnowEveryLayerOfARepeatedTextAtTheStepsStart) {
  ExactRoutes routes({kLayers, kTopK, /*max_tokens=*/4, /*num_nodes=*/10});
  ExactRoutesPredictor predictor(routes);
  EXPECT_EQ(predictor.name(), "exact_routes");
  begin(predictor, 5, 0);
  EXPECT_EQ(predict(predictor, 3, 2), (std::vector<int32_t>{-1, -1}));
  for (const int layer : kLayers) route(predictor, layer, 0, {layer, layer + 4});
  begin(predictor, 6, 1);
  for (const int layer : kLayers) route(predictor, layer, 0, {layer + 1, layer + 4});

  begin(predictor, 5, 0, /*sequence=*/2);
  EXPECT_EQ(predict(predictor, 3, 4), (std::vector<int32_t>{3, 7, -1, -1}));
  EXPECT_EQ(predict(predictor, 1, 1), (std::vector<int32_t>{1}));
  begin(predictor, 6, 1, 2);
  EXPECT_EQ(predict(predictor, 3, 2), (std::vector<int32_t>{4, 7}));
  begin(predictor, 6, 2, 2);
  EXPECT_EQ(predict(predictor, 3, 2), (std::vector<int32_t>{-1, -1}));
}

}  // namespace
}  // namespace augur
