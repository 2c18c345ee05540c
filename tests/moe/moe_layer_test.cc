#include "moe/moe_layer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cache/expert_slots.h"
#include "kernels/cpu/reference_ops.h"

namespace augur {
namespace {

constexpr int64_t kHidden = 4;
constexpr int64_t kIntermediate = 3;
constexpr int kNumExperts = 4;

// Expert e multiplies: gate and up read x[0], down writes e + 1 times that to every output. So an
// output tells which experts ran and with what weight.
class MoeLayerTest : public ::testing::Test {
 protected:
  MoeLayerTest() {
    ops_->reserve({.max_tokens = 4,
                   .max_logit_rows = 4,
                   .max_context = 16,
                   .hidden_size = kHidden,
                   .vocab_size = 16,
                   .num_heads = 1,
                   .head_dim = 4,
                   .mlp_intermediate_size = 0,
                   .expert_intermediate_size = kIntermediate,
                   .num_experts = kNumExperts,
                   .top_k = 2,
                   .num_low_bit_experts = kNumExperts});
    for (int expert = 0; expert < kNumExperts; ++expert) {
      std::byte* const block = slots_.block(0, expert);
      std::vector<Bf16> in(kIntermediate * kHidden);
      for (int64_t i = 0; i < kIntermediate; ++i) in[i * kHidden] = to_bf16(1);
      ops_->pack_rows(MatrixUse::kMlp, block, kIntermediate, kHidden, 0, kIntermediate, in.data());
      ops_->pack_rows(MatrixUse::kMlp, block + layout_.up_offset, kIntermediate, kHidden, 0,
                      kIntermediate, in.data());
      const std::vector<Bf16> down(kHidden * kIntermediate,
                                   to_bf16(static_cast<float>(expert + 1)));
      ops_->pack_rows(MatrixUse::kMlp, block + layout_.down_offset, kHidden, kIntermediate, 0,
                      kHidden, down.data());
    }
    config_.num_experts = kNumExperts;
    config_.top_k = 2;
    config_.intermediate_size = kIntermediate;
    weights_.router = router_.data();
    weights_.experts = slots_.table(0);
  }

  void run(const std::vector<float>& x,
           RoutingObserver* observer,
           RouteSource* source = nullptr,
           ExpertSubstitute* substitute = nullptr) {
    const auto num_tokens = static_cast<int64_t>(x.size()) / kHidden;
    out_.assign(x.size(), -1);
    x_ = x;
    observers_.clear();
    if (observer != nullptr) observers_.push_back(observer);
    const Tensor input = dense(x_.data(), DType::kF32, num_tokens, kHidden);
    moe_layer(*ops_, config_, /*layer_idx=*/7, weights_,
              {.experts = experts_, .weights = routing_weights_, .logits = logits_}, input, input,
              dense(out_.data(), DType::kF32, num_tokens, kHidden), observers_, source,
              /*feed=*/nullptr, substitute);
  }

  const std::unique_ptr<Ops> ops_ = make_reference_ops(1);
  const ExpertLayout layout_ = expert_layout(*ops_, kHidden, kIntermediate);
  ExpertSlots slots_{*ops_, layout_, /*num_moe_layers=*/1, kNumExperts};
  // Expert e's logit is x[1] * e, so that a positive x[1] prefers the last experts.
  std::vector<float> router_ = {0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0};
  MoeConfig config_;
  MoeLayerWeights weights_;
  std::vector<RoutingObserver*> observers_;
  std::vector<float> x_;
  std::vector<float> out_;
  int32_t experts_[8] = {};
  float routing_weights_[8] = {};
  float logits_[16] = {};
};

TEST_F(MoeLayerTest, RunsTheChosenExpertsWithTheirWeights) {
  run({1, 100, 0, 0, /*second token*/ 1, -100, 0, 0}, nullptr);
  const float one_expert = 3 / (1 + std::exp(-1.0f));  // kIntermediate * silu(1) * 1
  // Logits 300 and 200 apart leave all weight on the first choice.
  EXPECT_NEAR(out_[0], 4 * one_expert, 1e-4);
  EXPECT_NEAR(out_[kHidden], 1 * one_expert, 1e-4);
}

TEST_F(MoeLayerTest, TellsTheObserverWhatRuns) {
  class Observer : public RoutingObserver {
   public:
    void on_routing(const RoutingView& routing) override { views.push_back(routing); }
    bool wants_logits() const override { return true; }
    std::vector<RoutingView> views;
  } observer;
  run({1, 1, 0, 0, /*second token*/ 1, -1, 0, 0}, &observer);
  const std::vector<float> observed = out_;
  ASSERT_EQ(observer.views.size(), 1u);
  const RoutingView& view = observer.views[0];
  EXPECT_EQ(view.layer_idx, 7);
  EXPECT_EQ(view.num_tokens, 2);
  EXPECT_EQ(std::vector<int32_t>(view.experts, view.experts + 4),
            (std::vector<int32_t>{3, 2, 0, 1}));
  EXPECT_FLOAT_EQ(view.weights[0] + view.weights[1], 1);
  EXPECT_FLOAT_EQ(view.logits.row<float>(1)[2], -2);
  run({1, 1, 0, 0, 1, -1, 0, 0}, nullptr);
  EXPECT_EQ(out_, observed);
}

// Answers for some rows with one expert twice over, and keeps what it is told.
class FixedSource final : public RouteSource {
 public:
  explicit FixedSource(std::vector<uint8_t> is_answered) : is_answered_(std::move(is_answered)) {}
  std::span<const uint8_t> answer(int layer_idx,
                                  const Tensor& gate_input,
                                  int32_t* experts,
                                  float* weights) override {
    EXPECT_EQ(layer_idx, 7);
    for (size_t row = 0; row < is_answered_.size(); ++row) {
      if (is_answered_[row] == 0) continue;
      experts[2 * row] = 1;
      experts[2 * row + 1] = 2;
      weights[2 * row] = 0.75f;
      weights[2 * row + 1] = 0.25f;
    }
    return is_answered_;
  }
  void learn(const GateRun& run) override {
    num_gated_rows = run.num_gated_rows;
    experts.assign(run.experts, run.experts + run.num_rows * 2);
  }

  int64_t num_gated_rows = -1;
  std::vector<int32_t> experts;

 private:
  std::vector<uint8_t> is_answered_;
};

const std::vector<float> kFourTokens = {1, 1, 0, 0, 2, 1, 0, 0, 3, -1, 0, 0, 1, -1, 0, 0};

// Every pattern of answered rows: what the gate decides for the others does not change.
TEST_F(MoeLayerTest, TheGateRunsForTheRowsThatTheSourceLeaves) {
  run(kFourTokens, nullptr);
  const std::vector<float> gated = out_;
  const std::vector<int32_t> chosen(experts_, experts_ + 8);
  for (int pattern = 0; pattern < 16; ++pattern) {
    std::vector<uint8_t> is_answered(4);
    for (int row = 0; row < 4; ++row) is_answered[row] = pattern >> row & 1;
    FixedSource source(is_answered);
    run(kFourTokens, nullptr, &source);
    EXPECT_EQ(source.num_gated_rows, std::count(is_answered.begin(), is_answered.end(), 0));
    for (int row = 0; row < 4; ++row) {
      const bool is = is_answered[row] != 0;
      EXPECT_EQ(source.experts[2 * row], is ? 1 : chosen[2 * row]) << pattern;
      // Experts 1 and 2 write 2 and 3 times what the row's first value makes of silu.
      const float x = kFourTokens[row * kHidden];
      const float unit = kIntermediate * x * x / (1 + std::exp(-x));
      const float expected = is ? (0.75f * 2 + 0.25f * 3) * unit : gated[row * kHidden];
      EXPECT_NEAR(out_[row * kHidden], expected, is ? 1e-3 * expected : 0) << pattern;
    }
  }
}

TEST_F(MoeLayerTest, ASourceWithoutAnswersChangesNothing) {
  run(kFourTokens, nullptr);
  const std::vector<float> gated = out_;
  FixedSource source({});
  run(kFourTokens, nullptr, &source);
  EXPECT_EQ(out_, gated);
  EXPECT_EQ(source.num_gated_rows, 4);
}

TEST_F(MoeLayerTest, LogitsOfAnsweredRowsAreNoNumbers) {
  class Observer : public RoutingObserver {
   public:
    void on_routing(const RoutingView& routing) override {
      for (int64_t row = 0; row < routing.num_tokens; ++row) {
        is_nan.push_back(std::isnan(*routing.logits.row<float>(row)));
      }
    }
    bool wants_logits() const override { return true; }
    std::vector<bool> is_nan;
  } observer;
  FixedSource source({0, 1, 1, 0});
  run(kFourTokens, &observer, &source);
  EXPECT_EQ(observer.is_nan, (std::vector<bool>{false, true, true, false}));
}

// The second form holds the experts in reverse order, so that what it served shows.
TEST_F(MoeLayerTest, LetsASecondFormServeWhatIsSubstitutedAfterObserversWereTold) {
  class Reversed final : public ExpertSubstitute {
   public:
    explicit Reversed(const ExpertTable& table) : table_(table) {}
    ExpertTable substitute(const RoutingView& routing, const Tensor& x, int32_t* experts) override {
      EXPECT_EQ(routing.num_tokens, x.num_rows);
      EXPECT_EQ(routing.experts, experts);
      experts[2] += kNumExperts;  // the second token's first choice, expert 0
      ExpertTable second = table_;
      second.slot_of_expert = slots_;
      return second;
    }

   private:
    const ExpertTable table_;
    const int32_t slots_[kNumExperts] = {3, 2, 1, 0};
  } reversed(weights_.experts);
  class Observer final : public RoutingObserver {
   public:
    void on_routing(const RoutingView& routing) override { first = routing.experts[2]; }
    int32_t first = -1;
  } observer;
  run({1, 100, 0, 0, /*second token*/ 1, -100, 0, 0}, &observer, /*source=*/nullptr, &reversed);
  EXPECT_EQ(observer.first, 0) << "observers see what the gate chose";
  const float one_expert = 3 / (1 + std::exp(-1.0f));
  EXPECT_NEAR(out_[0], 4 * one_expert, 1e-4);
  EXPECT_NEAR(out_[kHidden], 4 * one_expert, 1e-4);
}

}  // namespace
}  // namespace augur
