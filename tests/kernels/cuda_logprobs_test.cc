#include "kernels/cuda/logprobs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <span>

#include "kernels/cpu/logprobs.h"
#include "tests/kernels/cuda_fixture.h"

namespace augur::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Result {
  std::vector<float> target;
  std::vector<int32_t> top_ids;
  std::vector<float> top;
};

class CudaLogprobsTest : public CudaTest, public ::testing::WithParamInterface<RowBlocks> {
 protected:
  Result run(const std::vector<float>& logits,
             int64_t num_rows,
             const std::vector<int32_t>& targets,
             int top_n) {
    const int64_t vocab_size = static_cast<int64_t>(logits.size()) / num_rows;
    LogprobsArgs args;
    args.logits = dense(upload(logits), DType::kF32, num_rows, vocab_size);
    args.targets = targets.empty() ? nullptr : upload(targets);
    args.target_logprob = targets.empty() ? nullptr : device_array<float>(num_rows);
    args.top_n = top_n;
    args.top_ids = device_array<int32_t>(num_rows * top_n);
    args.top_logprobs = device_array<float>(num_rows * top_n);
    logprobs(args, stream(), GetParam());
    return {targets.empty() ? std::vector<float>() : download(args.target_logprob, num_rows),
            download(args.top_ids, num_rows * top_n),
            download(args.top_logprobs, num_rows * top_n)};
  }

  static Result run_on_cpu(std::vector<float> logits,
                           int64_t num_rows,
                           const std::vector<int32_t>& targets,
                           int top_n) {
    cpu::WorkerPool pool(2);
    const int64_t vocab_size = static_cast<int64_t>(logits.size()) / num_rows;
    std::vector<double> scratch(cpu::logprobs_scratch_bytes(vocab_size, 2) / 8 + 1);
    Result result = {std::vector<float>(targets.size()), std::vector<int32_t>(num_rows * top_n),
                     std::vector<float>(num_rows * top_n)};
    LogprobsArgs args;
    args.logits = dense(logits.data(), DType::kF32, num_rows, vocab_size);
    args.targets = targets.empty() ? nullptr : targets.data();
    args.target_logprob = targets.empty() ? nullptr : result.target.data();
    args.top_n = top_n;
    args.top_ids = result.top_ids.data();
    args.top_logprobs = result.top.data();
    cpu::logprobs(args, pool, std::as_writable_bytes(std::span(scratch)));
    return result;
  }

  // Both compute to 1e-6 (kernels/cpu/logprobs.h).
  static void expect_near(const std::vector<float>& actual, const std::vector<float>& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      if (std::isinf(expected[i])) {
        ASSERT_EQ(actual[i], expected[i]) << i;
      } else {
        ASSERT_NEAR(actual[i], expected[i], 2e-6 + 1e-7 * std::abs(expected[i])) << i;
      }
    }
  }
  void expect_as_on_cpu(const std::vector<float>& logits,
                        int64_t num_rows,
                        const std::vector<int32_t>& targets,
                        int top_n) {
    const Result actual = run(logits, num_rows, targets, top_n);
    const Result expected = run_on_cpu(logits, num_rows, targets, top_n);
    expect_near(actual.target, expected.target);
    EXPECT_EQ(actual.top_ids, expected.top_ids);
    expect_near(actual.top, expected.top);
  }
};

TEST_P(CudaLogprobsTest, AgreesWithTheCpu) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(-2.0f, 4.0f);
  for (const int64_t vocab_size : {1, 2, 37, 511, 4096, 5001, 151936}) {
    for (const int64_t num_rows : {1, 7, 64}) {
      if (vocab_size == 151936 && num_rows == 64) continue;
      std::vector<float> logits(num_rows * vocab_size);
      for (float& logit : logits) logit = normal(random);
      std::vector<int32_t> targets;
      for (int64_t row = 0; row < num_rows; ++row) {
        targets.push_back(static_cast<int32_t>(random() % (vocab_size + 1)) - 1);
      }
      for (const int top_n : {0, 1, 5, 64}) {
        SCOPED_TRACE(::testing::Message()
                     << num_rows << " rows of " << vocab_size << ", top " << top_n);
        expect_as_on_cpu(logits, num_rows, targets,
                         static_cast<int>(std::min<int64_t>(top_n, vocab_size)));
      }
    }
  }
}

// Orders in which the best are all in one place, or too many tie with them for a short list.
TEST_P(CudaLogprobsTest, RanksAdversarialRows) {
  std::mt19937 random(4);
  for (const int64_t vocab_size : {37, 4099, 40000}) {
    std::vector<std::vector<float>> rows(6, std::vector<float>(vocab_size, 1.5f));
    for (int64_t i = 0; i < vocab_size; ++i) {
      rows[1][i] = static_cast<float>(i) / 1000;
      rows[2][i] = -static_cast<float>(i) / 1000;
      rows[3][i] = static_cast<float>(random() % 4);
      rows[4][i] = i % 2048 < 4 ? 5.0f + static_cast<float>(random() % 100) : 0.0f;  // one thread's
      rows[5][i] = i % 2 == 0 ? 0.0f : -0.0f;
    }
    std::vector<float> logits;
    for (const auto& row : rows) logits.insert(logits.end(), row.begin(), row.end());
    expect_as_on_cpu(logits, 6, {0, 1, 2, 3, 4, 5}, 37);
  }
}

// More tokens reach every bound that parts of the row can give than the short list holds: the best
// lie in few parts of 128, all of them good.
TEST_P(CudaLogprobsTest, RanksARowWhoseBestLieInFewParts) {
  constexpr int64_t kVocab = 151936;
  std::vector<float> logits(kVocab, 0.0f);
  for (int64_t i = 0; i < kVocab; ++i) {
    if (i / 4 % 128 < 16) logits[i] = 10.0f + static_cast<float>(i % 1009) / 1009;
  }
  expect_as_on_cpu(logits, 1, {7}, 64);
}

TEST_P(CudaLogprobsTest, DefinesRowsThatAreNotNumbers) {
  const std::vector<std::vector<float>> rows = {
      {kNan, 1, -kInfinity}, {kNan, -kInfinity, kNan}, {kInfinity, 5, kInfinity},
      {kInfinity, 5, kNan},  {1000, 1001, -1000},      {-kInfinity, -kInfinity, -kInfinity},
      {500, 0, 0},           {-3e38f, 3e38f, -3e38f}};
  for (const auto& row : rows) {
    for (const int32_t target : {-1, 0, 1, 2}) {
      for (int top_n = 0; top_n <= 3; ++top_n) expect_as_on_cpu(row, 1, {target}, top_n);
    }
  }
}

TEST_P(CudaLogprobsTest, ReadsRowsWithAStride) {
  std::vector<float> logits;
  for (int i = 0; i < 40; ++i) logits.push_back(static_cast<float>(i * 7 % 11));
  LogprobsArgs args;
  args.logits = Tensor{upload(logits), DType::kF32, 4, 7, 10};
  args.top_n = 1;
  args.top_ids = device_array<int32_t>(4);
  args.top_logprobs = device_array<float>(4);
  logprobs(args, stream(), GetParam());
  const auto ids = download(args.top_ids, 4);
  for (int row = 0; row < 4; ++row) {
    const auto first = logits.begin() + row * 10;
    EXPECT_EQ(ids[row], std::max_element(first, first + 7) - first);
  }
}

TEST_P(CudaLogprobsTest, ARowDoesNotDependOnOthers) {
  std::mt19937 random(5);
  constexpr int64_t kRows = 5, kVocab = 20011;
  std::vector<float> logits(kRows * kVocab);
  for (float& logit : logits) logit = static_cast<float>(random() % 4096) / 256;
  const std::vector<int32_t> targets = {0, 1, 2, 3, 20010};
  const Result all = run(logits, kRows, targets, 4);
  for (int64_t row = 0; row < kRows; ++row) {
    const auto first = logits.begin() + row * kVocab;
    const Result alone = run({first, first + kVocab}, 1, {targets[row]}, 4);
    EXPECT_EQ(alone.target[0], all.target[row]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(alone.top[i], all.top[row * 4 + i]);
  }
}

TEST_P(CudaLogprobsTest, RefusesBrokenRequirementsAndTakesNoRows) {
  LogprobsArgs args;
  EXPECT_NO_THROW(logprobs(args, stream(), GetParam()));
  args.logits = dense(device_array<float>(2), DType::kF32, 1, 2);
  args.top_ids = device_array<int32_t>(100);
  args.top_logprobs = device_array<float>(100);
  args.top_n = 3;
  EXPECT_THROW(logprobs(args, stream(), GetParam()), std::logic_error);
  args.logits = dense(device_array<float>(100), DType::kF32, 1, 100);
  args.top_n = kMaxTopLogprobs + 1;
  EXPECT_THROW(logprobs(args, stream(), GetParam()), std::logic_error);
  args.top_n = 0;
  args.targets = device_array<int32_t>(1);
  EXPECT_THROW(logprobs(args, stream(), GetParam()), std::logic_error);
}

INSTANTIATE_TEST_SUITE_P(Blocks,
                         CudaLogprobsTest,
                         ::testing::Values(RowBlocks::kFastest, RowBlocks::kOne));

}  // namespace
}  // namespace augur::cuda
