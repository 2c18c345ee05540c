// The router and the experts.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <random>

#include "tests/kernels/ops_contract.h"

namespace augur::contract {
namespace {

struct RouterProblem {
  std::string name;
  int64_t hidden;
  int num_experts, top_k;
  RouterScoring scoring;
  bool has_correction = false;
  int num_groups = 1, top_groups = 1;
  bool normalises = true;
  float scaling_factor = 1;
};

struct RouterResult {
  std::vector<int32_t> experts;
  std::vector<float> weights, logits;
};

RouterResult run_router(Ops& ops,
                        const RouterProblem& problem,
                        std::span<const float> x,
                        std::span<const float> weight,
                        const std::vector<int32_t>& forced = {}) {
  Arena arena(ops);
  const auto num_tokens = static_cast<int64_t>(x.size()) / problem.hidden;
  RouterArgs args;
  args.x = arena.tensor(x, num_tokens, problem.hidden, DType::kF32);
  args.weight = arena.copy(weight);
  if (problem.has_correction) args.correction = arena.copy(random_values(problem.num_experts, 31));
  args.scoring = problem.scoring;
  args.num_experts = problem.num_experts;
  args.top_k = problem.top_k;
  args.num_groups = problem.num_groups;
  args.top_groups = problem.top_groups;
  args.normalise_top_k = problem.normalises;
  args.scaling_factor = problem.scaling_factor;
  if (!forced.empty()) args.forced = arena.copy(forced);
  args.experts = arena.copy(std::vector<int32_t>(num_tokens * problem.top_k, -1));
  args.weights = arena.copy(std::vector<float>(num_tokens * problem.top_k, -1.0f));
  args.logits = arena.result(num_tokens, problem.num_experts, DType::kF32);
  ops.router(args);
  return {arena.read(args.experts, num_tokens * problem.top_k),
          arena.read(args.weights, num_tokens * problem.top_k), arena.read(args.logits)};
}

std::vector<RouterProblem> router_problems() {
  using enum RouterScoring;
  return {
      {"one expert", 16, 1, 1, kSoftmax},
      {"softmax", 64, 32, 4, kSoftmax},
      {"softmax, not normalised", 100, 60, 6, kSoftmax, false, 1, 1, false},
      {"all experts", 33, 7, 7, kSigmoid},
      {"sigmoid with correction", 256, 128, 8, kSigmoid, true, 1, 1, true, 2.5f},
      {"groups", 64, 64, 6, kSigmoid, true, 8, 3, true, 1.5f},
      {"groups of softmax", 96, 16, 2, kSoftmax, false, 4, 1, true},
      {"one expert a group", 32, 8, 3, kSigmoid, false, 8, 3, true},
  };
}

TEST_P(OpsContract, RouterChoosesWhatTheReferenceChooses) {
  for (const RouterProblem& problem : router_problems()) {
    for (const int64_t num_tokens : {0, 1, 3, 40}) {
      const std::vector<float> x = random_values(num_tokens * problem.hidden, 32);
      const std::vector<float> weight = random_values(problem.num_experts * problem.hidden, 33);
      const RouterResult actual = run_router(*ops_, problem, x, weight);
      const RouterResult expected = run_router(*reference_, problem, x, weight);
      SCOPED_TRACE(testing::Message() << problem.name << ", " << num_tokens << " tokens");
      EXPECT_EQ(actual.experts, expected.experts);
      EXPECT_TRUE(rows_are_near(actual.weights, expected.weights, problem.top_k,
                                GetParam().product_tolerance));
      EXPECT_TRUE(rows_are_near(actual.logits, expected.logits, problem.num_experts,
                                GetParam().product_tolerance));
    }
  }
}

TEST_P(OpsContract, RouterTreatsATokenAloneAsInABatch) {
  constexpr int64_t kTokens = 70;
  for (const RouterProblem& problem : router_problems()) {
    const std::vector<float> x = random_values(kTokens * problem.hidden, 34);
    const std::vector<float> weight = random_values(problem.num_experts * problem.hidden, 35);
    const RouterResult all = run_router(*ops_, problem, x, weight);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {33, 1}, {5, 17}}) {
      const RouterResult part =
          run_router(*ops_, problem,
                     std::span(x).subspan(first * problem.hidden, count * problem.hidden), weight);
      const auto rows = [first = first, count = count](const auto& values, int64_t num_cols) {
        return std::span(values).subspan(first * num_cols, count * num_cols);
      };
      EXPECT_TRUE(
          are_same_rows(part.logits, rows(all.logits, problem.num_experts), problem.num_experts));
      EXPECT_TRUE(are_same_rows(part.weights, rows(all.weights, problem.top_k), problem.top_k));
      EXPECT_TRUE(std::ranges::equal(part.experts, rows(all.experts, problem.top_k)));
    }
  }
}

TEST_P(OpsContract, RouterWeighsForcedExpertsAsIfChosen) {
  constexpr int64_t kTokens = 19;
  for (const RouterProblem& problem : router_problems()) {
    const std::vector<float> x = random_values(kTokens * problem.hidden, 38);
    const std::vector<float> weight = random_values(problem.num_experts * problem.hidden, 39);
    // What the gate chose, in another order: the same weights in that order.
    const RouterResult chosen = run_router(*ops_, problem, x, weight);
    std::vector<int32_t> backwards(chosen.experts.size());
    for (size_t i = 0; i < backwards.size(); ++i) {
      const size_t token = i / problem.top_k;
      backwards[i] = chosen.experts[(token + 1) * problem.top_k - 1 - i % problem.top_k];
    }
    const RouterResult forced = run_router(*ops_, problem, x, weight, backwards);
    EXPECT_EQ(forced.experts, backwards) << problem.name;
    for (size_t i = 0; i < backwards.size(); ++i) {
      const size_t token = i / problem.top_k;
      EXPECT_NEAR(forced.weights[i],
                  chosen.weights[(token + 1) * problem.top_k - 1 - i % problem.top_k], 1e-5)
          << problem.name;
    }
    // Experts that no gate would choose together: as the reference weighs them.
    std::vector<int32_t> first(chosen.experts.size());
    for (size_t i = 0; i < first.size(); ++i) first[i] = static_cast<int32_t>(i) % problem.top_k;
    EXPECT_TRUE(rows_are_near(run_router(*ops_, problem, x, weight, first).weights,
                              run_router(*reference_, problem, x, weight, first).weights,
                              problem.top_k, 1e-3f))
        << problem.name;
  }
}

TEST_P(OpsContract, RouterGivesTiesToTheLowerIndex) {
  // Every expert has the same row, so that all scores are equal wherever an expert's sum is made.
  for (const int num_experts : {3, 16, 37, 128}) {
    RouterProblem problem = {"ties", 80, num_experts, 3, RouterScoring::kSigmoid};
    const std::vector<float> row = random_values(problem.hidden, 36);
    std::vector<float> weight;
    for (int e = 0; e < num_experts; ++e) weight.insert(weight.end(), row.begin(), row.end());
    const std::vector<float> x = random_values(5 * problem.hidden, 37);
    const RouterResult result = run_router(*ops_, problem, x, weight);
    for (int i = 0; i < 5 * problem.top_k; ++i) EXPECT_EQ(result.experts[i], i % problem.top_k);
  }
}

struct MoeProblem {
  std::string name;
  int64_t hidden, intermediate;
  int num_experts, top_k;
  int64_t shared_intermediate = 0;  // 0: no shared expert
};

struct MoeChoices {
  int64_t num_tokens;
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

// Different experts per token; a quarter of the tokens crowd onto the same ones.
MoeChoices random_choices(const MoeProblem& problem, int64_t num_tokens) {
  MoeChoices choices = {num_tokens, {}, random_values(num_tokens * problem.top_k, 41)};
  for (int64_t t = 0; t < num_tokens; ++t) {
    const std::vector<int32_t> order = random_order(problem.num_experts, t % 4 == 0 ? 0 : t);
    choices.experts.insert(choices.experts.end(), order.begin(), order.begin() + problem.top_k);
  }
  return choices;
}

// Experts that come one to three at a time, in any order, into two or three slots; between their
// turns the slots hold rubbish.
class SmallPool : public ExpertFeed {
 public:
  SmallPool(std::byte* blocks, const ExpertLayout& layout, int num_experts, uint64_t seed)
      : blocks_(blocks),
        layout_(layout),
        random_(seed),
        memory_(kSlots * layout.block_bytes + 64),
        slot_of_(num_experts, -1) {}

  ExpertTable table() {
    auto* const base =
        reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(memory_.data()) + 63) / 64 * 64);
    return {base, layout_, slot_of_.data(), static_cast<int>(slot_of_.size())};
  }
  void begin(std::span<const int32_t> experts) override {
    EXPECT_TRUE(std::is_sorted(experts.begin(), experts.end()));
    EXPECT_TRUE(wanted_.empty()) << "all of the part before were run";
    wanted_.assign(experts.begin(), experts.end());
    std::shuffle(wanted_.begin(), wanted_.end(), random_);
  }
  std::span<const int32_t> next() override {
    std::fill(slot_of_.begin(), slot_of_.end(), -1);
    std::fill(memory_.begin(), memory_.end(), std::byte{0x7f});
    given_.clear();
    const size_t count = std::min<size_t>(1 + random_() % kSlots, wanted_.size());
    for (size_t slot = 0; slot < count; ++slot) {
      given_.push_back(wanted_.back());
      wanted_.pop_back();
      slot_of_[given_.back()] = static_cast<int32_t>(slot);
      std::memcpy(const_cast<std::byte*>(table().slots) + slot * layout_.block_bytes,
                  blocks_ + given_.back() * layout_.block_bytes, layout_.block_bytes);
    }
    return given_;
  }

 private:
  static constexpr int kSlots = 3;

  const std::byte* const blocks_;  // by expert
  const ExpertLayout layout_;
  std::mt19937_64 random_;
  std::vector<std::byte> memory_;
  std::vector<int32_t> slot_of_;
  std::vector<int32_t> wanted_, given_;
};

// Tokens [first, first + count) of the problem; experts lie in the slots that slot_seed shuffles,
// or, fed, come into a small pool in an order that it shuffles.
std::vector<float> run_moe(Ops& ops,
                           const MoeProblem& problem,
                           const MoeChoices& choices,
                           int64_t first,
                           int64_t count,
                           uint64_t slot_seed,
                           bool is_fed = false) {
  const int64_t hidden = problem.hidden;
  Arena arena(ops);
  const auto part = [&](const auto& values, int64_t num_cols) {
    return std::span(values).subspan(first * num_cols, count * num_cols);
  };
  const std::vector<float> x = random_values(choices.num_tokens * hidden, 42);
  const ExpertLayout layout = expert_layout(ops, hidden, problem.intermediate);
  const int num_slots = problem.num_experts + 2;
  std::vector<int32_t> slots = random_order(num_slots, slot_seed);
  slots.resize(problem.num_experts);
  if (is_fed) std::iota(slots.begin(), slots.end(), 0);
  std::byte* const pool = arena.zeros(num_slots * layout.block_bytes);
  for (int e = 0; e < problem.num_experts; ++e) {
    std::byte* const block = pool + slots[e] * layout.block_bytes;
    const int64_t size = problem.intermediate * hidden;
    const auto values = [&](int which) { return random_values(size, 1000 + 3 * e + which); };
    arena.pack_into(MatrixUse::kMlp, block, values(0), problem.intermediate, hidden);
    arena.pack_into(MatrixUse::kMlp, block + layout.up_offset, values(1), problem.intermediate,
                    hidden);
    arena.pack_into(MatrixUse::kMlp, block + layout.down_offset, values(2), hidden,
                    problem.intermediate);
  }
  MoeArgs args;
  args.x = arena.activations(part(x, hidden), count, hidden);
  args.experts = arena.copy(part(choices.experts, problem.top_k));
  args.weights = arena.copy(part(choices.weights, problem.top_k));
  args.top_k = problem.top_k;
  args.table = {pool, layout, arena.copy(slots), problem.num_experts};
  if (problem.shared_intermediate > 0) {
    const int64_t size = problem.shared_intermediate * hidden;
    args.shared = {
        arena.pack(MatrixUse::kMlp, random_values(size, 43), problem.shared_intermediate, hidden),
        arena.pack(MatrixUse::kMlp, random_values(size, 44), problem.shared_intermediate, hidden),
        arena.pack(MatrixUse::kMlp, random_values(size, 45), hidden, problem.shared_intermediate)};
  }
  SmallPool feed(pool, layout, problem.num_experts, slot_seed);
  if (is_fed) {
    args.feed = &feed;
    args.table = feed.table();
  }
  args.out = arena.result(count, hidden, DType::kF32);
  ops.moe(args);
  return arena.read(args.out);
}

std::vector<MoeProblem> moe_problems() {
  return {
      {"one expert", 32, 16, 1, 1},  {"odd sizes", 50, 23, 5, 2, 31},
      {"small", 128, 64, 32, 4, 64}, {"no shared expert", 96, 48, 16, 8},
      {"wide", 256, 96, 8, 3, 200},
  };
}

TEST_P(OpsContract, MoeIsNearTheReference) {
  for (const MoeProblem& problem : moe_problems()) {
    for (const int64_t num_tokens : {0, 1, 2, 9, 40, 150}) {
      const MoeChoices choices = random_choices(problem, num_tokens);
      EXPECT_TRUE(rows_are_near(run_moe(*ops_, problem, choices, 0, num_tokens, 1),
                                run_moe(*reference_, problem, choices, 0, num_tokens, 1),
                                problem.hidden, GetParam().activation_tolerance))
          << problem.name << ", " << num_tokens << " tokens";
    }
  }
}

TEST_P(OpsContract, MoeTakesAsManyTokensAsWereReserved) {
  const MoeProblem problem = {"full step", 64, 32, 6, 2, 32};
  const int64_t num_tokens = contract_limits().max_tokens;
  const MoeChoices choices = random_choices(problem, num_tokens);
  EXPECT_TRUE(rows_are_near(run_moe(*ops_, problem, choices, 0, num_tokens, 1),
                            run_moe(*reference_, problem, choices, 0, num_tokens, 1),
                            problem.hidden, GetParam().activation_tolerance));
}

TEST_P(OpsContract, MoeDoesNotDependOnTheBatchOrTheSlots) {
  constexpr int64_t kTokens = 130;
  constexpr std::array<std::pair<int64_t, int64_t>, 7> kParts = {
      std::pair{0, 1}, {77, 1}, {3, 2}, {8, 8}, {1, 17}, {60, 33}, {65, 65}};
  for (const MoeProblem& problem : moe_problems()) {
    const MoeChoices choices = random_choices(problem, kTokens);
    const std::vector<float> all = run_moe(*ops_, problem, choices, 0, kTokens, 1);
    for (const auto& [first, count] : kParts) {
      EXPECT_TRUE(are_same_rows(
          run_moe(*ops_, problem, choices, first, count, 2),
          std::span(all).subspan(first * problem.hidden, count * problem.hidden), problem.hidden))
          << problem.name << ", " << count << " tokens from " << first;
    }
  }
}

TEST_P(OpsContract, MoeIsTheSameHoweverExpertsAreFed) {
  if (!ops_->uses_host_memory()) GTEST_SKIP() << "takes no feed";
  for (const MoeProblem& problem : moe_problems()) {
    for (const int64_t num_tokens : {1, 2, 9, 40, 300}) {
      const MoeChoices choices = random_choices(problem, num_tokens);
      const std::vector<float> expected = run_moe(*ops_, problem, choices, 0, num_tokens, 1);
      for (const uint64_t seed : {5, 6}) {
        EXPECT_TRUE(
            are_same_rows(run_moe(*ops_, problem, choices, 0, num_tokens, seed, /*is_fed=*/true),
                          expected, problem.hidden))
            << problem.name << ", " << num_tokens << " tokens";
      }
    }
  }
}

}  // namespace
}  // namespace augur::contract
