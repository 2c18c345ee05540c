#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "kernels/cpu/moe.h"
#include "tests/kernels/available_isas.h"
#include "tests/kernels/gemm_fixture.h"

namespace augur::cpu {
namespace {

struct MoeShape {
  int64_t hidden_size;
  int64_t intermediate_size;
  int64_t shared_intermediate_size;  // 0: none
  int num_experts;
  int top_k;
};

// A layer whose experts lie in the slots in reverse order, with one slot to spare.
struct TestLayer {
  explicit TestLayer(const MoeShape& the_shape) : shape(the_shape) {
    const int64_t projection = tiled_bytes(shape.intermediate_size, shape.hidden_size);
    const int64_t down = tiled_bytes(shape.hidden_size, shape.intermediate_size);
    table.layout = {shape.hidden_size, shape.intermediate_size, projection, 2 * projection,
                    2 * projection + down};
    slots = allocate_host(table.layout.block_bytes * (shape.num_experts + 1));
    for (int expert = 0; expert < shape.num_experts; ++expert) {
      experts.emplace_back(shape.hidden_size, shape.intermediate_size, 100 + expert * 3);
      slot_of_expert.push_back(shape.num_experts - expert);
      std::byte* const block = slots.data() + slot_of_expert.back() * table.layout.block_bytes;
      std::memcpy(block, experts.back().gate.packed.data(), projection);
      std::memcpy(block + projection, experts.back().up.packed.data(), projection);
      std::memcpy(block + 2 * projection, experts.back().down.packed.data(), down);
    }
    table.slots = slots.data();
    table.slot_of_expert = slot_of_expert.data();
    table.num_experts = shape.num_experts;
    if (shape.shared_intermediate_size > 0) {
      shared.emplace(shape.hidden_size, shape.shared_intermediate_size, 77);
    }
  }

  MoeShape shape;
  std::vector<TestMlp> experts;
  std::optional<TestMlp> shared;
  Buffer slots;
  std::vector<int32_t> slot_of_expert;
  ExpertTable table;
};

struct Routing {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

// Different experts for each token; those from `num_eligible` on are never chosen.
Routing random_routing(int64_t num_tokens, int top_k, int num_eligible, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(0.1f, 1.0f);
  std::vector<int32_t> all(num_eligible);
  std::iota(all.begin(), all.end(), 0);
  Routing routing;
  for (int64_t t = 0; t < num_tokens; ++t) {
    std::shuffle(all.begin(), all.end(), engine);
    routing.experts.insert(routing.experts.end(), all.begin(), all.begin() + top_k);
    for (int i = 0; i < top_k; ++i) routing.weights.push_back(uniform(engine));
  }
  return routing;
}

class CpuMoeTest : public ::testing::TestWithParam<Isa> {
 protected:
  std::vector<float> run(const TestLayer& layer,
                         const Bf16* x,
                         const int32_t* experts,
                         const float* weights,
                         int64_t num_tokens) {
    const MoeShape& shape = layer.shape;
    std::vector<float> out(num_tokens * shape.hidden_size, 99.0f);
    Buffer scratch = allocate_host(
        moe_scratch_bytes({num_tokens, shape.hidden_size, shape.intermediate_size,
                           shape.shared_intermediate_size, shape.num_experts, shape.top_k},
                          GetParam()));
    MoeArgs args;
    args.x = dense(const_cast<Bf16*>(x), DType::kBF16, num_tokens, shape.hidden_size);
    args.experts = experts;
    args.weights = weights;
    args.top_k = shape.top_k;
    args.table = layer.table;
    if (layer.shared.has_value()) args.shared = layer.shared->view();
    args.out = dense(out.data(), DType::kF32, num_tokens, shape.hidden_size);
    moe(args, GetParam(), pool_, {scratch.data(), static_cast<size_t>(scratch.num_bytes())});
    return out;
  }

  void expect_matches_plain_loops(const TestLayer& layer,
                                  const Routing& routing,
                                  int64_t num_tokens) {
    const int64_t hidden_size = layer.shape.hidden_size;
    const int top_k = layer.shape.top_k;
    const std::vector<Bf16> x = random_bf16(num_tokens * hidden_size, 9);
    const std::vector<float> out =
        run(layer, x.data(), routing.experts.data(), routing.weights.data(), num_tokens);
    for (int64_t t = 0; t < num_tokens; ++t) {
      std::vector<Expected> expected(hidden_size);
      const auto add = [&](const TestMlp& expert, double weight) {
        const std::vector<Expected> result = expert.apply(x.data() + t * hidden_size);
        for (int64_t i = 0; i < hidden_size; ++i) {
          expected[i].value += weight * result[i].value;
          expected[i].magnitude += std::abs(weight) * result[i].magnitude;
        }
      };
      for (int k = 0; k < top_k; ++k) {
        add(layer.experts[routing.experts[t * top_k + k]], routing.weights[t * top_k + k]);
      }
      if (layer.shared.has_value()) add(*layer.shared, 1);
      for (int64_t i = 0; i < hidden_size; ++i) {
        ASSERT_NEAR(out[t * hidden_size + i], expected[i].value, gated_tolerance(expected[i]))
            << "token " << t << " of " << num_tokens << ", column " << i;
      }
    }
  }

  WorkerPool pool_{2};
};

TEST_P(CpuMoeTest, MatchesPlainLoops) {
  const MoeShape shapes[] = {
      {64, 32, 0, 8, 2}, {48, 16, 48, 5, 3}, {33, 21, 40, 4, 1}, {96, 64, 0, 6, 6}};
  for (const MoeShape& shape : shapes) {
    const TestLayer layer(shape);
    for (int64_t num_tokens : {1, 2, 7, 40}) {
      const Routing routing = random_routing(num_tokens, shape.top_k, shape.num_experts, 5);
      expect_matches_plain_loops(layer, routing, num_tokens);
    }
  }
}

TEST_P(CpuMoeTest, ExpertsNobodyChoseAreNotRead) {
  TestLayer layer({64, 32, 0, 8, 2});
  for (int expert = 3; expert < 8; ++expert) layer.slot_of_expert[expert] = -1;
  expect_matches_plain_loops(layer, random_routing(20, 2, 3, 5), 20);
}

TEST_P(CpuMoeTest, OneExpertMayGetEveryToken) {
  const TestLayer layer({64, 48, 32, 4, 1});
  expect_matches_plain_loops(layer, {std::vector<int32_t>(150, 2), std::vector<float>(150, 0.5f)},
                             150);
}

TEST_P(CpuMoeTest, RowsDoNotDependOnHowManyThereAre) {
  // 300 tokens leave the fused path: 1,200 rows of 224 gated values are more than it keeps.
  const MoeShape shape = {64, 224, 48, 12, 4};
  const TestLayer layer(shape);
  constexpr int64_t kTokens = 300;
  const std::vector<Bf16> x = random_bf16(kTokens * shape.hidden_size, 9);
  const Routing routing = random_routing(kTokens, shape.top_k, shape.num_experts, 6);
  const std::vector<float> all =
      run(layer, x.data(), routing.experts.data(), routing.weights.data(), kTokens);
  for (int64_t count : {1, 2, 3, 8, 17, 100}) {
    const int64_t first = kTokens - count;
    const std::vector<float> some =
        run(layer, x.data() + first * shape.hidden_size, routing.experts.data() + first * 4,
            routing.weights.data() + first * 4, count);
    EXPECT_EQ(0, std::memcmp(some.data(), all.data() + first * shape.hidden_size, some.size() * 4))
        << count;
  }
}

TEST_P(CpuMoeTest, MoreTokensThanOnePassGiveTheSameRows) {
  const MoeShape shape = {32, 16, 0, 4, 2};
  const TestLayer layer(shape);
  const int64_t num_tokens = kMaxMoeTokens + 5;
  const std::vector<Bf16> x = random_bf16(num_tokens * shape.hidden_size, 9);
  const Routing routing = random_routing(num_tokens, shape.top_k, shape.num_experts, 6);
  const std::vector<float> all =
      run(layer, x.data(), routing.experts.data(), routing.weights.data(), num_tokens);
  const std::vector<float> last =
      run(layer, x.data() + (num_tokens - 8) * 32, routing.experts.data() + (num_tokens - 8) * 2,
          routing.weights.data() + (num_tokens - 8) * 2, 8);
  EXPECT_EQ(0, std::memcmp(last.data(), all.data() + (num_tokens - 8) * 32, last.size() * 4));
}

TEST_P(CpuMoeTest, RefusesExpertsWithoutASlotOrANumber) {
  TestLayer layer({32, 16, 0, 4, 1});
  layer.slot_of_expert[1] = -1;
  const std::vector<Bf16> x = random_bf16(32, 9);
  const float weight = 1;
  for (int32_t expert : {1, -1, 4}) {
    EXPECT_THROW(run(layer, x.data(), &expert, &weight, 1), std::logic_error) << expert;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, CpuMoeTest, ::testing::ValuesIn(available_isas()), isa_test_name);

}  // namespace
}  // namespace augur::cpu
