#include "kernels/cpu/logprobs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

namespace augur::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Result {
  std::vector<float> target;
  std::vector<int32_t> top_ids;
  std::vector<float> top;
};

Result run(std::vector<float> logits,
           int64_t num_rows,
           const std::vector<int32_t>& targets,
           int top_n,
           int num_threads = 2) {
  WorkerPool pool(num_threads);
  const int64_t vocab_size = static_cast<int64_t>(logits.size()) / num_rows;
  std::vector<double> scratch(logprobs_scratch_bytes(vocab_size, num_threads) / 8 + 1, kNan);
  Result result = {std::vector<float>(targets.size()), std::vector<int32_t>(num_rows * top_n),
                   std::vector<float>(num_rows * top_n)};
  LogprobsArgs args;
  args.logits = dense(logits.data(), DType::kF32, num_rows, vocab_size);
  args.targets = targets.empty() ? nullptr : targets.data();
  args.target_logprob = targets.empty() ? nullptr : result.target.data();
  args.top_n = top_n;
  args.top_ids = result.top_ids.data();
  args.top_logprobs = result.top.data();
  logprobs(args, pool, std::as_writable_bytes(std::span(scratch)));
  return result;
}

double plain_logprob(const float* logits, int64_t vocab_size, int64_t target) {
  const double largest = *std::max_element(logits, logits + vocab_size);
  double sum = 0;
  for (int64_t i = 0; i < vocab_size; ++i) sum += std::exp(logits[i] - largest);
  return logits[target] - largest - std::log(sum);
}

TEST(Logprobs, AgreesWithPlainDoubleMaths) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(-2.0f, 4.0f);
  for (const int64_t vocab_size : {1, 2, 17, 511, 513, 8192, 40001}) {
    constexpr int64_t kRows = 5;
    std::vector<float> logits(kRows * vocab_size);
    for (float& logit : logits) logit = normal(random);
    std::vector<int32_t> targets;
    for (int64_t row = 0; row < kRows; ++row) {
      targets.push_back(static_cast<int32_t>(random() % vocab_size));
    }
    const int top_n = static_cast<int>(std::min<int64_t>(vocab_size, 20));
    const Result result = run(logits, kRows, targets, top_n);
    for (int64_t row = 0; row < kRows; ++row) {
      const float* const x = logits.data() + row * vocab_size;
      EXPECT_NEAR(result.target[row], plain_logprob(x, vocab_size, targets[row]), 2e-6);
      std::vector<int32_t> order(vocab_size);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return x[a] > x[b]; });
      for (int i = 0; i < top_n; ++i) {
        EXPECT_EQ(result.top_ids[row * top_n + i], order[i]);
        EXPECT_NEAR(result.top[row * top_n + i], plain_logprob(x, vocab_size, order[i]), 2e-6);
      }
    }
  }
}

TEST(Logprobs, ARowDoesNotDependOnOthersOrThreads) {
  std::mt19937 random(4);
  constexpr int64_t kRows = 9, kVocab = 1003;
  std::vector<float> logits(kRows * kVocab);
  for (float& logit : logits) logit = static_cast<float>(random() % 4096) / 256;
  const std::vector<int32_t> targets = {0, 1, 2, 3, 4, 5, 1000, 1001, 1002};
  const Result all = run(logits, kRows, targets, 4);
  EXPECT_EQ(run(logits, kRows, targets, 4, 1).target, all.target);
  for (int64_t row = 0; row < kRows; ++row) {
    const auto first = logits.begin() + row * kVocab;
    const Result alone = run({first, first + kVocab}, 1, {targets[row]}, 4);
    EXPECT_EQ(alone.target[0], all.target[row]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(alone.top[i], all.top[row * 4 + i]);
  }
}

TEST(Logprobs, GivesTiesToTheLowerId) {
  const Result result = run({1, 3, 2, 3, 3, 2}, 1, {}, 5);
  EXPECT_EQ(result.top_ids, (std::vector<int32_t>{1, 3, 4, 2, 5}));
}

TEST(Logprobs, ReadsEitherTargetsOrTopAlone) {
  EXPECT_NEAR(run({0, 0}, 1, {1}, 0).target[0], -std::log(2.0), 1e-6);
  EXPECT_NEAR(run({0, 0}, 1, {}, 1).top[0], -std::log(2.0), 1e-6);
  EXPECT_EQ(run({0, 0}, 1, {-1}, 0).target[0], 0.0f);
}

TEST(Logprobs, StaysAccurateForLargeLogits) {
  const Result result = run({1000, 1001, -1000}, 1, {0}, 1);
  EXPECT_NEAR(result.target[0], -1.0 - std::log1p(std::exp(-1.0)), 1e-6);
  EXPECT_EQ(result.top_ids[0], 1);
  // All in one token: nothing but rounding is left for the others.
  EXPECT_EQ(run({500, 0}, 1, {0}, 0).target[0], 0.0f);
  EXPECT_EQ(run({500, 0}, 1, {1}, 0).target[0], -500.0f);
}

TEST(Logprobs, DefinesRowsThatAreNotNumbers) {
  EXPECT_EQ(run({kNan, 1, -kInfinity}, 1, {1}, 0).target[0], 0.0f);
  EXPECT_EQ(run({kNan, 1, -kInfinity}, 1, {0}, 0).target[0], -kInfinity);
  EXPECT_EQ(run({kNan, 1, -kInfinity}, 1, {2}, 0).target[0], -kInfinity);
  const Result ranked = run({kNan, 1, -kInfinity}, 1, {}, 3);
  EXPECT_EQ(ranked.top_ids, (std::vector<int32_t>{1, 0, 2}));
  EXPECT_EQ(ranked.top, (std::vector<float>{0, -kInfinity, -kInfinity}));
  EXPECT_EQ(run({kNan, -kInfinity}, 1, {0}, 1).target[0], -kInfinity);
  const Result infinite = run({kInfinity, 5, kInfinity}, 1, {2}, 2);
  EXPECT_NEAR(infinite.target[0], -std::log(2.0), 1e-6);
  EXPECT_NEAR(infinite.top[1], -std::log(2.0), 1e-6);
  EXPECT_EQ(run({kInfinity, 5}, 1, {1}, 0).target[0], -kInfinity);
}

TEST(Logprobs, RefusesTargetsOutsideTheVocabulary) {
  EXPECT_THROW(run({0, 1}, 1, {2}, 0), std::logic_error);
  EXPECT_THROW(run({0, 1}, 1, {-2}, 0), std::logic_error);
  EXPECT_THROW(run({0, 1}, 1, {}, 3), std::logic_error);
}

TEST(Logprobs, NoRowsMeansNothingToDo) {
  WorkerPool pool(1);
  EXPECT_NO_THROW(logprobs({}, pool, {}));
}

}  // namespace
}  // namespace augur::cpu
