// Experts with int8 weights, alone and beside bf16 ones, for backends that have them.
#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cpu/quantize.h"
#include "tests/kernels/ops_contract.h"

namespace augur::contract {
namespace {

struct Int8Problem {
  std::string name;
  int64_t hidden, intermediate;
  int num_experts, top_k;
};

std::vector<Int8Problem> int8_problems() {
  return {{"one expert", 32, 16, 1, 1},
          {"odd sizes", 50, 23, 5, 2},
          {"small", 128, 64, 32, 4},
          {"crowded", 96, 80, 2, 2}};
}

// A gated MLP by plain loops in double.
struct PlainExpert {
  std::vector<float> gate, up, down;

  std::vector<double> operator()(std::span<const float> x, int64_t intermediate) const {
    const auto hidden = static_cast<int64_t>(x.size());
    std::vector<double> out(hidden);
    for (int64_t i = 0; i < intermediate; ++i) {
      double g = 0, u = 0;
      for (int64_t c = 0; c < hidden; ++c) {
        g += double{gate[i * hidden + c]} * x[c];
        u += double{up[i * hidden + c]} * x[c];
      }
      const double inner = g / (1 + std::exp(-g)) * u;
      for (int64_t c = 0; c < hidden; ++c) out[c] += down[c * intermediate + i] * inner;
    }
    return out;
  }
};

// Which experts the tokens choose: numbers from num_experts on mean low-bit ones.
struct Choices {
  int64_t num_tokens;
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

enum class Forms { kTableIsInt8, kBoth };

// The experts of a layer in both formats, and what they then are.
class Int8Layer {
 public:
  Int8Layer(Ops& ops, const Int8Problem& problem, bool has_whole_numbers = false)
      : problem_(problem),
        arena_(ops),
        bf16_(expert_layout(ops, problem.hidden, problem.intermediate)),
        int8_(expert_layout(ops, problem.hidden, problem.intermediate, ExpertFormat::kInt8)),
        slot_of_expert_(random_order(problem.num_experts, 3)) {
    bf16_slots_ = arena_.zeros(problem.num_experts * bf16_.block_bytes);
    int8_slots_ = arena_.zeros(problem.num_experts * int8_.block_bytes);
    for (int e = 0; e < problem.num_experts; ++e) {
      std::byte* const bf16 = bf16_slots_ + slot_of_expert_[e] * bf16_.block_bytes;
      std::byte* const int8 = int8_slots_ + slot_of_expert_[e] * int8_.block_bytes;
      const auto put = [&](int64_t offset, int which, int64_t num_rows, int64_t num_cols) {
        std::vector<float> values = random_values(num_rows * num_cols, 2000 + 3 * e + which);
        if (has_whole_numbers) make_whole(values, num_cols);
        arena_.pack_into(MatrixUse::kMlp, bf16 + offset, values, num_rows, num_cols);
      };
      put(0, 0, problem.intermediate, problem.hidden);
      put(bf16_.up_offset, 1, problem.intermediate, problem.hidden);
      put(bf16_.down_offset, 2, problem.hidden, problem.intermediate);
      ops.quantize_expert(bf16_, bf16, int8_, int8);
      bf16_experts_.push_back(plain(bf16_.view(bf16)));
      int8_experts_.push_back(plain(int8_.view(int8)));
    }
  }

  // Tokens [first, first + count).
  std::vector<float> run(const Choices& choices, Forms forms, int64_t first, int64_t count) {
    const auto part = [&](const auto& values, int64_t num_cols) {
      return std::span(values).subspan(first * num_cols, count * num_cols);
    };
    MoeArgs args;
    args.x = arena_.activations(part(x_of(choices), problem_.hidden), count, problem_.hidden);
    args.experts = arena_.copy(part(choices.experts, problem_.top_k));
    args.weights = arena_.copy(part(choices.weights, problem_.top_k));
    args.top_k = problem_.top_k;
    const int32_t* const slots = arena_.copy(slot_of_expert_);
    const ExpertTable int8 = {int8_slots_, int8_, slots, problem_.num_experts};
    args.table = {bf16_slots_, bf16_, slots, problem_.num_experts};
    (forms == Forms::kTableIsInt8 ? args.table : args.low_bit) = int8;
    args.out = arena_.result(count, problem_.hidden, DType::kF32);
    arena_.ops().moe(args);
    return arena_.read(args.out);
  }

  std::vector<float> expected(const Choices& choices, Forms forms) const {
    const std::vector<float> x = x_of(choices);
    std::vector<float> out;
    for (int64_t t = 0; t < choices.num_tokens; ++t) {
      std::vector<double> sum(problem_.hidden);
      for (int k = 0; k < problem_.top_k; ++k) {
        const int32_t choice = choices.experts[t * problem_.top_k + k];
        const bool is_int8 = forms == Forms::kTableIsInt8 || choice >= problem_.num_experts;
        const PlainExpert& expert =
            (is_int8 ? int8_experts_ : bf16_experts_)[choice % problem_.num_experts];
        const std::vector<double> result = expert(
            std::span(x).subspan(t * problem_.hidden, problem_.hidden), problem_.intermediate);
        for (int64_t c = 0; c < problem_.hidden; ++c) {
          sum[c] += choices.weights[t * problem_.top_k + k] * result[c];
        }
      }
      out.insert(out.end(), sum.begin(), sum.end());
    }
    return out;
  }

 private:
  // Multiples of 1/128 up to 127/128, which each row has: its scale is then 1/128, and int8 exact.
  static void make_whole(std::vector<float>& values, int64_t num_cols) {
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = i % num_cols == 0 ? -127.0f / 128 : std::round(values[i] * 127) / 128;
    }
  }
  static PlainExpert plain(const MlpWeights& weights) {
    const auto read = [](const PackedMatrix& matrix) {
      std::vector<float> values(matrix.num_rows * matrix.num_cols);
      cpu::dequantize(matrix, values.data());
      return values;
    };
    return {read(weights.gate), read(weights.up), read(weights.down)};
  }
  std::vector<float> x_of(const Choices& choices) const {
    return random_values(choices.num_tokens * problem_.hidden, 52);
  }

  const Int8Problem problem_;
  Arena arena_;
  const ExpertLayout bf16_, int8_;
  const std::vector<int32_t> slot_of_expert_;
  std::byte* bf16_slots_;
  std::byte* int8_slots_;
  std::vector<PlainExpert> bf16_experts_, int8_experts_;
};

// `low_bit_share` of 4 choices, spread over tokens and places, name the low-bit form.
Choices choose(const Int8Problem& problem, int64_t num_tokens, int low_bit_share) {
  Choices choices = {num_tokens, {}, random_values(num_tokens * problem.top_k, 51)};
  for (int64_t t = 0; t < num_tokens; ++t) {
    const std::vector<int32_t> order = random_order(problem.num_experts, t % 3 == 0 ? 0 : t);
    for (int k = 0; k < problem.top_k; ++k) {
      const bool is_low_bit = (t * 7 + k * 3) % 4 < low_bit_share;
      choices.experts.push_back(order[k] + (is_low_bit ? problem.num_experts : 0));
    }
  }
  return choices;
}

struct Case {
  Forms forms;
  int low_bit_share;
};
constexpr std::array<Case, 4> kCases = {Case{Forms::kTableIsInt8, 0}, Case{Forms::kBoth, 0},
                                        Case{Forms::kBoth, 2}, Case{Forms::kBoth, 4}};

TEST_P(OpsContract, Int8ExpertsAreNearPlainLoopsOverTheirWeights) {
  if (!ops_->has_int8_experts()) GTEST_SKIP() << ops_->description();
  for (const Int8Problem& problem : int8_problems()) {
    Int8Layer layer(*ops_, problem);
    for (const auto& [forms, share] : kCases) {
      for (const int64_t num_tokens : {0, 1, 2, 9, 40, 150}) {
        const Choices choices = choose(problem, num_tokens, share);
        EXPECT_TRUE(rows_are_near(layer.run(choices, forms, 0, num_tokens),
                                  layer.expected(choices, forms), problem.hidden,
                                  GetParam().activation_tolerance))
            << problem.name << ", " << num_tokens << " tokens, " << share << " of 4 low-bit";
      }
    }
  }
}

TEST_P(OpsContract, Int8ExpertsDoNotDependOnTheBatch) {
  if (!ops_->has_int8_experts()) GTEST_SKIP() << ops_->description();
  constexpr int64_t kTokens = 130;
  constexpr std::array<std::pair<int64_t, int64_t>, 6> kParts = {
      std::pair{0, 1}, {77, 1}, {3, 2}, {1, 17}, {60, 33}, {65, 65}};
  for (const Int8Problem& problem : int8_problems()) {
    Int8Layer layer(*ops_, problem);
    for (const auto& [forms, share] : kCases) {
      const Choices choices = choose(problem, kTokens, share);
      const std::vector<float> all = layer.run(choices, forms, 0, kTokens);
      for (const auto& [first, count] : kParts) {
        EXPECT_TRUE(are_same_rows(
            layer.run(choices, forms, first, count),
            std::span(all).subspan(first * problem.hidden, count * problem.hidden), problem.hidden))
            << problem.name << ", " << count << " tokens from " << first;
      }
    }
  }
}

TEST_P(OpsContract, WeightsThatInt8HoldsExactlyGiveTheSameBits) {
  if (!ops_->has_int8_experts()) GTEST_SKIP() << ops_->description();
  for (const Int8Problem& problem : int8_problems()) {
    Int8Layer layer(*ops_, problem, /*has_whole_numbers=*/true);
    for (const int64_t num_tokens : {1, 5, 14, 130}) {
      const std::vector<float> bf16 =
          layer.run(choose(problem, num_tokens, 0), Forms::kBoth, 0, num_tokens);
      for (const auto& [forms, share] : kCases) {
        EXPECT_TRUE(are_identical(
            layer.run(choose(problem, num_tokens, share), forms, 0, num_tokens), bf16))
            << problem.name << ", " << num_tokens << " tokens, " << share << " of 4 low-bit";
      }
    }
  }
}

TEST_P(OpsContract, EachChoiceIsServedByTheFormItNames) {
  if (!ops_->has_int8_experts()) GTEST_SKIP() << ops_->description();
  const Int8Problem problem = {"small", 64, 32, 8, 2};
  constexpr int64_t kTokens = 20;
  Int8Layer layer(*ops_, problem);
  const auto run = [&](Forms forms, int share) {
    return layer.run(choose(problem, kTokens, share), forms, 0, kTokens);
  };
  const std::vector<float> int8 = run(Forms::kTableIsInt8, 0);
  EXPECT_TRUE(are_identical(run(Forms::kBoth, 4), int8));
  EXPECT_FALSE(are_identical(run(Forms::kBoth, 0), int8));
  EXPECT_FALSE(are_identical(run(Forms::kBoth, 2), int8));
  EXPECT_FALSE(are_identical(run(Forms::kBoth, 2), run(Forms::kBoth, 0)));
}

TEST_P(OpsContract, RefusesExpertsBeyondBothTables) {
  if (!ops_->has_int8_experts()) GTEST_SKIP() << ops_->description();
  const Int8Problem problem = {"small", 32, 16, 4, 1};
  Int8Layer layer(*ops_, problem);
  EXPECT_THROW(layer.run({1, {8}, {1.0f}}, Forms::kBoth, 0, 1), std::logic_error);
  EXPECT_THROW(layer.run({1, {4}, {1.0f}}, Forms::kTableIsInt8, 0, 1), std::logic_error);
  EXPECT_NO_THROW(layer.run({1, {7}, {1.0f}}, Forms::kBoth, 0, 1));
}

TEST_P(OpsContract, WithoutInt8ExpertsALayoutOfThemIsRefused) {
  if (ops_->has_int8_experts()) GTEST_SKIP() << ops_->description() << " has them";
  EXPECT_THROW(expert_layout(*ops_, 32, 16, ExpertFormat::kInt8), std::logic_error);
  EXPECT_THROW(ops_->quantize_expert({}, nullptr, {}, nullptr), std::logic_error);
}

}  // namespace
}  // namespace augur::contract
