#include "prefetch/prefetch_planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>

#include "tests/prefetch/step_of_rows.h"

namespace augur {
namespace {

using Ids = std::vector<int32_t>;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int64_t kExpertBytes = 100;

/// Guesses what it was told, from any distance up to its reach.
class Script final : public Predictor {
 public:
  std::string_view name() const override { return "script"; }
  void on_step(const StepRows&) override { last_layer_ = -1; }
  void on_routing(const RoutingView& routing) override { last_layer_ = routing.layer_idx; }
  void on_step_end() override { ++num_steps_; }
  void predict(int target_layer, const Guesses& guesses) override {
    ++num_asked_;
    EXPECT_GT(target_layer, last_layer_);
    for (const int32_t expert : guesses.experts) EXPECT_EQ(expert, -1);
    if (last_layer_ < 0 && !guesses_first_layers_) return;
    const auto found = experts_.find(target_layer);
    if (found == experts_.end()) return;
    std::copy(found->second.begin(), found->second.end(), guesses.experts.begin());
  }

  std::map<int, Ids> experts_;  // by layer, [num_tokens, width]
  bool guesses_first_layers_ = false;
  bool wants_logits_ = false;
  bool wants_logits() const override { return wants_logits_; }
  int num_asked_ = 0;
  int num_steps_ = 0;

 private:
  int last_layer_ = -1;
};

struct Order {
  ExpertKey key;
  FetchPriority priority;

  friend bool operator==(const Order&, const Order&) = default;
};

class Pool final : public PrefetchSink {
 public:
  ExpertPlace place(ExpertKey key) const override {
    const auto found = places_.find(key);
    return found == places_.end() ? ExpertPlace::kAbsent : found->second;
  }
  bool prefetch(ExpertKey key, FetchPriority priority, double probability) override {
    EXPECT_GT(probability, 0);
    EXPECT_LE(probability, 1);
    if (num_to_take_-- <= 0) return false;
    orders_.push_back({key, priority});
    places_[key] = ExpertPlace::kOnTheWay;
    return true;
  }
  void on_stale(ExpertKey key) override { stale_.push_back(key); }

  std::map<ExpertKey, ExpertPlace> places_;
  std::vector<Order> orders_;
  std::vector<ExpertKey> stale_;
  int num_to_take_ = 1000;
};

// MoE layers 1, 2, 3 and 5 of 8 experts; guesses of two ranks, two layers ahead.
class PrefetchPlannerTest : public ::testing::Test {
 protected:
  void make(const PrefetchBudget* budget = nullptr, double min_probability = 0.2) {
    PrefetchPlanner::Options options;
    options.max_distance = 2;
    options.width = 2;
    options.min_probability = min_probability;
    options.top_k = 2;
    auto script = std::make_unique<Script>();
    script_ = script.get();
    std::vector<std::unique_ptr<Predictor>> predictors;
    predictors.push_back(std::move(script));
    planner_ = std::make_unique<PrefetchPlanner>(MoeLayers({1, 2, 3, 5}, 8), std::move(predictors),
                                                 kExpertBytes, options, pool_, budget);
  }
  void begin(StepOfRows step = StepOfRows().decode(1, 9)) {
    step_ = std::move(step);
    planner_->on_step(step_.rows());
  }
  void route(int layer, const Ids& experts) { planner_->on_routing(routing_of(layer, experts, 2)); }
  // A whole step of one row.
  void run(const std::map<int, Ids>& chosen) {
    begin();
    for (const auto& [layer, experts] : chosen) route(layer, experts);
    planner_->on_step_end();
  }
  // Rank 0 always right from any distance, rank 1 never.
  void calibrate() {
    script_->experts_ = {{1, {0, 7}}, {2, {0, 7}}, {3, {0, 7}}, {5, {0, 7}}};
    for (int i = 0; i < 200; ++i) run({{1, {0, 1}}, {2, {0, 1}}, {3, {0, 1}}, {5, {0, 1}}});
    script_->experts_.clear();
    pool_ = Pool();
  }

  Pool pool_;
  Script* script_ = nullptr;
  std::unique_ptr<PrefetchPlanner> planner_;
  StepOfRows step_;
};

TEST_F(PrefetchPlannerTest, OrdersTheLikelyAndTellsHowUrgentTheyAre) {
  make();
  calibrate();
  script_->experts_ = {{2, {4, 6}}, {3, {5, 6}}, {5, {2, 6}}};
  begin();
  EXPECT_THAT(pool_.orders_, IsEmpty());
  route(1, {0, 1});
  EXPECT_THAT(pool_.orders_, ElementsAre(Order{{2, 4}, FetchPriority::kNextLayer},
                                         Order{{3, 5}, FetchPriority::kLaterLayers}))
      << "rank 1 was never right; layer 5 is too far";
  pool_.orders_.clear();
  route(2, {4, 0});
  EXPECT_THAT(pool_.orders_, ElementsAre(Order{{3, 5}, FetchPriority::kNextLayer},
                                         Order{{5, 2}, FetchPriority::kLaterLayers}))
      << "what is on the way becomes more urgent";
}

TEST_F(PrefetchPlannerTest, LearnsWhatRanksAreWorth) {
  make();
  calibrate();
  EXPECT_GT(planner_->calibration().precision(0, 1, 0), 0.9);
  EXPECT_LT(planner_->calibration().precision(0, 1, 1), 0.03);
  // Half of the chosen in two layers of three: before the step there are no guesses.
  EXPECT_NEAR(planner_->calibration().recall(0, 2, 2), 1.0 / 3, 0.01);
}

TEST_F(PrefetchPlannerTest, DoesNotTrustAPredictorThatHasShownNothing) {
  make(nullptr, /*min_probability=*/0.3);  // by chance 2 of 8 experts are right
  script_->experts_ = {{2, {4, 6}}};
  begin();
  route(1, {0, 1});
  EXPECT_THAT(pool_.orders_, IsEmpty());
}

TEST_F(PrefetchPlannerTest, GuessesTheFirstLayersBeforeTheStep) {
  make();
  calibrate();
  script_->guesses_first_layers_ = true;
  script_->experts_ = {{1, {3, 7}}};
  // Such guesses have a record of their own only once they are made: from both distances at first
  // they are worth what chance is.
  for (int i = 0; i < 100; ++i) run({{1, {3, 4}}});
  pool_ = Pool();
  begin();
  EXPECT_THAT(pool_.orders_, ElementsAre(Order{{1, 3}, FetchPriority::kNextLayer}));
}

TEST_F(PrefetchPlannerTest, NamesWhatWasFetchedInVain) {
  make();
  calibrate();
  script_->experts_ = {{2, {4, 6}}, {3, {5, 6}}};
  begin();
  route(1, {0, 1});
  route(2, {3, 2});
  EXPECT_THAT(pool_.stale_, ElementsAre(ExpertKey{2, 4}));
  route(3, {1, 5});
  EXPECT_THAT(pool_.stale_, SizeIs(1)) << "5 was used";
  EXPECT_EQ(planner_->counters().num_stale + planner_->counters().num_used,
            planner_->counters().num_prefetched);
}

TEST_F(PrefetchPlannerTest, DropsWhatAFailedStepFetched) {
  make();
  calibrate();
  script_->experts_ = {{2, {4, 6}}};
  begin();
  route(1, {0, 1});
  begin();
  EXPECT_THAT(pool_.stale_, ElementsAre(ExpertKey{2, 4}));
  const int64_t num_rows = planner_->calibration().num_rows(0, 1);
  route(2, {0, 1});
  EXPECT_EQ(planner_->calibration().num_rows(0, 1), num_rows)
      << "layer 2 was not guessed one layer ahead in this step";
}

TEST_F(PrefetchPlannerTest, LeavesAloneWhatIsThere) {
  make();
  calibrate();
  script_->experts_ = {{2, {4, 6}}, {3, {5, 6}}};
  pool_.places_[{2, 4}] = ExpertPlace::kResident;
  begin();
  route(1, {0, 1});
  EXPECT_THAT(pool_.orders_, ElementsAre(Order{{3, 5}, FetchPriority::kLaterLayers}));
  route(2, {0, 1});
  EXPECT_THAT(pool_.stale_, IsEmpty()) << "it did not bring expert 4";
}

TEST_F(PrefetchPlannerTest, StopsWhenTheSinkRefuses) {
  make();
  calibrate();
  pool_.num_to_take_ = 1;
  const int64_t num_refused = planner_->counters().num_refused;
  script_->experts_ = {{2, {4, 6}}, {3, {5, 6}}};
  begin();
  route(1, {0, 1});
  EXPECT_THAT(pool_.orders_, SizeIs(1));
  EXPECT_EQ(planner_->counters().num_refused, num_refused + 1);
}

TEST_F(PrefetchPlannerTest, PutsThoseFirstThatAreWorthMostPerByte) {
  make();
  calibrate();
  planner_->set_sizes(
      [](ExpertKey key) { return key.layer == 2 ? 4 * kExpertBytes : kExpertBytes; });
  script_->experts_ = {{2, {4, 6}}, {3, {5, 6}}};
  begin();
  route(1, {0, 1});
  ASSERT_THAT(planner_->likely(), SizeIs(2));
  EXPECT_EQ(planner_->likely()[0].key, (ExpertKey{3, 5}));
}

TEST_F(PrefetchPlannerTest, KeepsToTheBudget) {
  PrefetchBudget::Options options;
  options.expert_bytes = kExpertBytes;
  options.max_experts_per_layer = 1;
  PrefetchBudget budget(options);
  make(&budget);
  script_->experts_ = {{1, {0, 7}}, {2, {0, 7}}, {3, {0, 7}}, {5, {0, 7}}};
  int64_t num_prefetched = 0;
  int num_with_budget = 0;
  for (int i = 0; i < 2000; ++i) {
    const bool has_budget = budget.bytes_per_layer(1) > 0;
    const int num_asked = script_->num_asked_;
    begin();
    for (const int layer : {1, 2, 3, 5}) {
      route(layer, {0, 1});
      const int64_t now = planner_->counters().num_prefetched;
      EXPECT_LE(now - num_prefetched, has_budget ? 1 : 0);
      num_prefetched = now;
    }
    planner_->on_step_end();
    EXPECT_EQ(script_->num_asked_ > num_asked, has_budget) << "no guessing without a budget";
    num_with_budget += has_budget;
    budget.on_step_end(has_budget ? 90 : 100, 1);
    pool_.places_.clear();
  }
  EXPECT_GT(num_with_budget, 1000);
  EXPECT_GT(planner_->counters().num_over_budget, 0);
  EXPECT_EQ(planner_->counters().prefetched_bytes, num_prefetched * kExpertBytes);
  EXPECT_EQ(script_->num_steps_, 2000) << "predictors watch in any case";
}

TEST_F(PrefetchPlannerTest, LeavesLargeStepsAlone) {
  make();
  calibrate();
  const int num_asked = script_->num_asked_;
  begin(StepOfRows().add(1, 0, Ids(65, 1)));
  route(1, Ids(130, 0));
  EXPECT_EQ(script_->num_asked_, num_asked);
  EXPECT_THROW(route(2, {0, 1}), std::logic_error) << "rows of another step";
}

TEST_F(PrefetchPlannerTest, CombinesTheRowsOfABatch) {
  make();
  calibrate();
  script_->experts_ = {{2, {4, 6, 4, 5}}};
  begin(StepOfRows().decode(1, 9).decode(2, 9));
  route(1, {0, 1, 2, 3});
  ASSERT_THAT(planner_->likely(), SizeIs(1));
  const double p = planner_->calibration().precision(0, 1, 0);
  EXPECT_DOUBLE_EQ(planner_->likely()[0].probability, 1 - (1 - p) * (1 - p));
}

TEST_F(PrefetchPlannerTest, AsksForLogitsWhereAPredictorDoes) {
  make();
  EXPECT_FALSE(planner_->wants_logits());
  script_->wants_logits_ = true;
  EXPECT_TRUE(planner_->wants_logits());
}

}  // namespace
}  // namespace augur
