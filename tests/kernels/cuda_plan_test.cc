#include <algorithm>
#include <random>

#include "kernels/cuda/moe_plan.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

enum class Routing { kEven, kOneExpert, kSkewed, kMostlyPadding };

struct Problem {
  int64_t num_assignments;
  int num_experts;
  int tile_rows;
  Routing routing;
};

class CudaPlanTest : public CudaTest, public ::testing::WithParamInterface<Problem> {};

std::vector<int32_t> random_experts(const Problem& problem) {
  std::mt19937 generator(7);
  std::uniform_int_distribution<int32_t> even(0, problem.num_experts - 1);
  std::vector<int32_t> experts(problem.num_assignments);
  for (int32_t& expert : experts) {
    const int32_t drawn = even(generator);
    switch (problem.routing) {
      case Routing::kEven:
        expert = drawn;
        break;
      case Routing::kOneExpert:
        expert = problem.num_experts - 1;
        break;
      case Routing::kSkewed:
        expert = std::min(drawn, even(generator)) / 3;
        break;
      case Routing::kMostlyPadding:
        expert = even(generator) % 4 == 0 ? drawn : -1;
        break;
    }
  }
  return experts;
}

TEST_P(CudaPlanTest, SortsStablyAndCutsTilesWhenRunAgainInTheSameMemory) {
  const Problem problem = GetParam();
  const std::vector<int32_t> experts = random_experts(problem);
  std::vector<int32_t> slots(problem.num_experts);
  for (int e = 0; e < problem.num_experts; ++e) slots[e] = 5000 - 3 * e;

  std::vector<int32_t> expected_sorted;
  std::vector<MoeTile> expected_tiles;
  for (int32_t e = 0; e < problem.num_experts; ++e) {
    const auto first = static_cast<int32_t>(expected_sorted.size());
    for (int64_t i = 0; i < problem.num_assignments; ++i) {
      if (experts[i] == e) expected_sorted.push_back(static_cast<int32_t>(i));
    }
    const auto end = static_cast<int32_t>(expected_sorted.size());
    for (int32_t row = first; row < end; row += problem.tile_rows) {
      expected_tiles.push_back({e, row, std::min(problem.tile_rows, end - row), slots[e]});
    }
  }

  const int64_t num_bytes =
      moe_plan_bytes(problem.num_assignments, problem.num_experts, problem.tile_rows);
  auto* const memory = device_array<std::byte>(num_bytes);
  MoePlanArgs args = {.experts = upload(experts),
                      .num_assignments = problem.num_assignments,
                      .slot_of_expert = upload(slots),
                      .num_experts = problem.num_experts,
                      .plan = place_moe_plan(memory, problem.num_assignments, problem.num_experts,
                                             problem.tile_rows)};
  ASSERT_LE(reinterpret_cast<std::byte*>(args.plan.scratch), memory + num_bytes);
  for (int run = 0; run < 2; ++run) {
    plan_moe(args, stream());
    ASSERT_EQ(download(args.plan.num_tiles, 1)[0], static_cast<int>(expected_tiles.size()));
    ASSERT_LE(static_cast<int64_t>(expected_tiles.size()),
              max_tiles(problem.num_assignments, problem.num_experts, problem.tile_rows));
    EXPECT_EQ(download(args.plan.sorted, static_cast<int64_t>(expected_sorted.size())),
              expected_sorted);
    const auto tiles = download(args.plan.tiles, static_cast<int64_t>(expected_tiles.size()));
    for (size_t i = 0; i < tiles.size(); ++i) {
      ASSERT_EQ(tiles[i].expert, expected_tiles[i].expert) << "tile " << i;
      ASSERT_EQ(tiles[i].first, expected_tiles[i].first) << "tile " << i;
      ASSERT_EQ(tiles[i].num_rows, expected_tiles[i].num_rows) << "tile " << i;
      ASSERT_EQ(tiles[i].slot, expected_tiles[i].slot) << "tile " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Problems,
                         CudaPlanTest,
                         ::testing::Values(Problem{0, 8, 64, Routing::kEven},
                                           Problem{1, 1, 8, Routing::kEven},
                                           Problem{8, 128, 16, Routing::kEven},
                                           Problem{255, 128, 8, Routing::kSkewed},
                                           Problem{2048, 128, 16, Routing::kEven},
                                           Problem{2048, 1024, 1, Routing::kOneExpert},
                                           Problem{2049, 1000, 64, Routing::kEven},
                                           Problem{8192, 60, 64, Routing::kSkewed},
                                           Problem{65536, 128, 128, Routing::kMostlyPadding},
                                           Problem{131072, 512, 64, Routing::kOneExpert},
                                           Problem{300'001, 257, 64, Routing::kEven}));

}  // namespace
}  // namespace augur::cuda
