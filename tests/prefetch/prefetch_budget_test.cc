#include "prefetch/prefetch_budget.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>

namespace augur {
namespace {

constexpr int64_t kExpertBytes = 1000;

PrefetchBudget::Options options(int max_experts = 16) {
  PrefetchBudget::Options options;
  options.expert_bytes = kExpertBytes;
  options.max_experts_per_layer = max_experts;
  return options;
}

/// The cost of a step with so many experts' budget.
using Costs = std::function<double(int64_t num_experts)>;

/// A place where steps cost what they are told, times noise.
class Simulation {
 public:
  explicit Simulation(double noise = 0, uint32_t seed = 1) : noise_(noise), random_(seed) {}

  void run(int num_steps, const Costs& costs, int64_t num_rows = 1) {
    for (int i = 0; i < num_steps; ++i) {
      const int64_t bytes = budget_.bytes_per_layer(num_rows);
      std::lognormal_distribution<double> noise(0, noise_);
      const double factor = noise_ > 0 ? noise(random_) : 1;
      total_ += costs(bytes / kExpertBytes) * factor;
      without_ += costs(0) * factor;
      budget_.on_step_end(costs(bytes / kExpertBytes) * factor, num_rows);
      EXPECT_LE(static_cast<double>(budget_.num_probe_steps()),
                0.05 * static_cast<double>(budget_.num_steps()));
    }
  }
  int64_t kept(int64_t num_rows = 1) const {
    return budget_.kept_bytes_per_layer(num_rows) / kExpertBytes;
  }
  /// What the steps since the last call cost, over what they would have without prefetching.
  double take_relative_cost() {
    const double relative = total_ / without_;
    total_ = without_ = 0;
    return relative;
  }

  PrefetchBudget budget_{options()};

 private:
  double noise_;
  std::mt19937 random_;
  double total_ = 0;
  double without_ = 0;
};

double harmful(int64_t num_experts) {
  return 100.0 * (1 + 0.1 * static_cast<double>(num_experts));
}
double useless(int64_t) {
  return 100;
}
// 4 experts are best: 20 % less.
double useful(int64_t num_experts) {
  switch (num_experts) {
    case 0:
      return 100;
    case 1:
      return 93;
    case 2:
      return 87;
    case 4:
      return 80;
    case 8:
      return 90;
    default:
      return 130;
  }
}

TEST(PrefetchBudgetTest, BeginsWithNothing) {
  PrefetchBudget budget(options());
  EXPECT_EQ(budget.bytes_per_layer(1), 0);
}

TEST(PrefetchBudgetTest, SettlesOnNothingWherePrefetchingHarms) {
  Simulation simulation;
  simulation.run(5000, harmful);
  EXPECT_EQ(simulation.kept(), 0);
  // Probes are a twentieth of the steps, and those that harm most are the rarest; evenly spread
  // over the five budgets they would cost 3.1 %.
  EXPECT_LT(simulation.take_relative_cost(), 1.031);
}

TEST(PrefetchBudgetTest, SettlesOnNothingWhereItChangesNothing) {
  Simulation simulation;
  simulation.run(5000, useless);
  EXPECT_EQ(simulation.kept(), 0);
}

TEST(PrefetchBudgetTest, FindsTheBestBudget) {
  Simulation simulation;
  simulation.run(1000, useful);
  EXPECT_EQ(simulation.kept(), 4);
  simulation.take_relative_cost();
  simulation.run(2000, useful);
  EXPECT_EQ(simulation.kept(), 4);
  EXPECT_LT(simulation.take_relative_cost(), 0.82);
}

TEST(PrefetchBudgetTest, FindsAGoodBudgetThroughNoise) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    Simulation simulation(/*noise=*/0.1, seed);
    simulation.run(6000, useful);
    simulation.take_relative_cost();
    simulation.run(3000, useful);
    EXPECT_LT(simulation.take_relative_cost(), 0.9) << "seed " << seed;
  }
}

TEST(PrefetchBudgetTest, FollowsTheWorkload) {
  Simulation simulation(/*noise=*/0.02);
  simulation.run(3000, useful);
  EXPECT_EQ(simulation.kept(), 4);
  simulation.run(1000, harmful);
  EXPECT_EQ(simulation.kept(), 0);
  simulation.run(3000, useful);
  EXPECT_EQ(simulation.kept(), 4);
}

TEST(PrefetchBudgetTest, DriftOfAllCostsIsNoReason) {
  Simulation simulation(/*noise=*/0.02);
  // Steps take up to twice as long and less again, over some thousands of them, whatever the arm.
  simulation.run(8000, [&](int64_t num_experts) {
    return useful(num_experts) *
           (1.5 + 0.5 * std::sin(2e-3 * static_cast<double>(simulation.budget_.num_steps())));
  });
  EXPECT_EQ(simulation.kept(), 4);
}

TEST(PrefetchBudgetTest, DoesNoHarmThroughNoise) {
  double worst = 0;
  double sum = 0;
  constexpr uint32_t kNumSeeds = 20;
  for (uint32_t seed = 1; seed <= kNumSeeds; ++seed) {
    Simulation simulation(/*noise=*/0.3, seed);
    simulation.run(6000, [](int64_t n) { return 100 * (1 + 0.01 * static_cast<double>(n)); });
    const double relative = simulation.take_relative_cost();
    worst = std::max(worst, relative);
    sum += relative;
  }
  // The share of probes alone costs 0.3 %.
  EXPECT_LT(sum / kNumSeeds, 1.01);
  EXPECT_LT(worst, 1.05);
}

TEST(PrefetchBudgetTest, StepsThatHangDecideNothing) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    Simulation simulation;
    std::mt19937 random(seed);
    for (int i = 0; i < 6000; ++i) {
      const double factor = random() % 500 == 0 ? 1000 : 1;
      simulation.run(1, [&](int64_t num_experts) { return factor * useful(num_experts); });
    }
    EXPECT_TRUE(simulation.kept() == 2 || simulation.kept() == 4)
        << "seed " << seed << " keeps " << simulation.kept();
  }
}

TEST(PrefetchBudgetTest, JudgesStepsOfDifferentSizesApart) {
  Simulation simulation;
  for (int i = 0; i < 1500; ++i) {
    simulation.run(1, useful, /*num_rows=*/1);
    simulation.run(
        1, [](int64_t n) { return 10 * harmful(n); }, /*num_rows=*/8);
  }
  EXPECT_EQ(simulation.kept(1), 4);
  EXPECT_EQ(simulation.kept(8), 0);
  EXPECT_EQ(simulation.kept(5), 0) << "5 to 8 rows are one class";
}

TEST(PrefetchBudgetTest, GivesLargeAndEmptyStepsNothing) {
  PrefetchBudget budget(options());
  for (const int64_t num_rows : {0, 65, 2048}) {
    EXPECT_EQ(budget.bytes_per_layer(num_rows), 0);
    budget.on_step_end(5, num_rows);
  }
  EXPECT_EQ(budget.num_steps(), 0);
}

TEST(PrefetchBudgetTest, TheSameCostsGiveTheSameBudgets) {
  Simulation a(0.2, 4), b(0.2, 4);
  for (int i = 0; i < 3000; ++i) {
    a.run(1, useful);
    b.run(1, useful);
    ASSERT_EQ(a.budget_.bytes_per_layer(1), b.budget_.bytes_per_layer(1));
  }
}

TEST(PrefetchBudgetTest, StaysWithinTheLargestBudget) {
  PrefetchBudget budget(options(/*max_experts=*/5));
  PrefetchBudget none(options(/*max_experts=*/0));
  for (int i = 0; i < 3000; ++i) {
    EXPECT_LE(budget.bytes_per_layer(1), 4 * kExpertBytes);
    budget.on_step_end(1.0 / static_cast<double>(1 + budget.bytes_per_layer(1)), 1);
    EXPECT_EQ(none.bytes_per_layer(1), 0);
    none.on_step_end(1, 1);
  }
  EXPECT_EQ(budget.kept_bytes_per_layer(1), 4 * kExpertBytes);
  EXPECT_EQ(none.num_probe_steps(), 0);
}

TEST(PrefetchBudgetTest, LeavesOutCostsThatAreNone) {
  PrefetchBudget budget(options());
  for (const double cost : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    budget.on_step_end(cost, 1);
  }
  EXPECT_EQ(budget.num_steps(), 0);
  EXPECT_THROW(PrefetchBudget(PrefetchBudget::Options{}), std::logic_error);
}

}  // namespace
}  // namespace augur
