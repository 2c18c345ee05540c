// Int8 experts of the fast CPU backend: what depends on threads and on how weights are widened.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/int8_gemm.h"
#include "kernels/cpu/quantize.h"
#include "tests/kernels/available_isas.h"
#include "tests/kernels/gemm_fixture.h"

namespace augur::cpu {
namespace {

class CpuInt8MoeTest : public ::testing::TestWithParam<Isa> {
 protected:
  // One layer of two experts in both forms; tokens take one expert in bf16 and the other in int8.
  std::vector<float> run(int num_threads,
                         int64_t hidden,
                         int64_t intermediate,
                         int64_t num_tokens) {
    const auto ops = make_cpu_ops(num_threads, GetParam());
    StepLimits limits;
    limits.max_tokens = num_tokens;
    limits.hidden_size = hidden;
    limits.expert_intermediate_size = intermediate;
    limits.num_experts = 2;
    limits.top_k = 2;
    limits.num_low_bit_experts = 2;
    ops->reserve(limits);
    const ExpertLayout bf16 = expert_layout(*ops, hidden, intermediate);
    const ExpertLayout int8 = expert_layout(*ops, hidden, intermediate, ExpertFormat::kInt8);
    Buffer slots = ops->allocate(2 * bf16.block_bytes);
    Buffer low_bit = ops->allocate(2 * int8.block_bytes);
    ops->fill_random(slots.data(), slots.num_bytes(), 0.1f, 5);
    for (int e = 0; e < 2; ++e) {
      ops->quantize_expert(bf16, slots.data() + e * bf16.block_bytes, int8,
                           low_bit.data() + e * int8.block_bytes);
    }
    std::vector<Bf16> x = random_bf16(num_tokens * hidden, 9);
    std::vector<int32_t> experts;
    for (int64_t t = 0; t < num_tokens; ++t) {
      experts.insert(experts.end(), {static_cast<int32_t>(t % 2), static_cast<int32_t>(3 - t % 2)});
    }
    const std::vector<float> weights(experts.size(), 0.5f);
    const int32_t slot_of_expert[] = {0, 1};
    std::vector<float> out(num_tokens * hidden, 99.0f);
    MoeArgs args;
    args.x = dense(x.data(), DType::kBF16, num_tokens, hidden);
    args.experts = experts.data();
    args.weights = weights.data();
    args.top_k = 2;
    args.table = {slots.data(), bf16, slot_of_expert, 2};
    args.low_bit = {low_bit.data(), int8, slot_of_expert, 2};
    args.out = dense(out.data(), DType::kF32, num_tokens, hidden);
    ops->moe(args);
    return out;
  }

  void expect_same(const std::vector<float>& a, const std::vector<float>& b) {
    ASSERT_EQ(a.size(), b.size());
    EXPECT_EQ(0, std::memcmp(a.data(), b.data(), a.size() * sizeof(float)));
  }
};

TEST_P(CpuInt8MoeTest, AnyNumberOfThreadsGivesTheSameBits) {
  // Few tokens, and more than any unit widens weights for on the way; some with odd last panels.
  for (const int64_t num_tokens : {1, 9, 100}) {
    const std::vector<float> alone = run(1, 208, 112, num_tokens);
    expect_same(run(2, 208, 112, num_tokens), alone);
    expect_same(run(5, 208, 112, num_tokens), alone);
  }
}

TEST_P(CpuInt8MoeTest, LongRowsGiveTheSameBitsAloneAndTogether) {
  // Beyond 4,096 columns fewer panels are widened at a time.
  constexpr int64_t kHidden = 4160, kTokens = 40;
  const std::vector<float> all = run(2, kHidden, 80, kTokens);
  const std::vector<float> one = run(2, kHidden, 80, 1);
  expect_same(one, {all.begin(), all.begin() + kHidden});
}

TEST_P(CpuInt8MoeTest, WorkspaceGrowsWithTheLowBitExperts) {
  const auto ops = make_cpu_ops(1, GetParam());
  StepLimits limits;
  limits.max_tokens = 64;
  limits.hidden_size = 64;
  limits.expert_intermediate_size = 32;
  limits.num_experts = 2;
  limits.top_k = 2;
  const int64_t without = ops->workspace_bytes(limits);
  limits.num_low_bit_experts = 1000;
  EXPECT_GT(ops->workspace_bytes(limits), without);
}

TEST_P(CpuInt8MoeTest, WideningKeepsEveryWholeNumber) {
  const GemmUnit& unit = gemm_unit(GetParam());
  if (unit.widen == nullptr) GTEST_SKIP() << "this unit widens on the way only";
  alignas(64) int8_t bytes[kInt8TileBytes];
  for (int64_t i = 0; i < kInt8TileBytes; ++i) bytes[i] = static_cast<int8_t>(i % 255 - 127);
  alignas(64) Bf16 widened[kInt8TileBytes];
  unit.widen(reinterpret_cast<const std::byte*>(bytes), 1, reinterpret_cast<std::byte*>(widened));
  for (int64_t i = 0; i < kInt8TileBytes; ++i) ASSERT_EQ(to_float(widened[i]), bytes[i]) << i;
}

INSTANTIATE_TEST_SUITE_P(Isas,
                         CpuInt8MoeTest,
                         ::testing::ValuesIn(available_isas()),
                         isa_test_name);

}  // namespace
}  // namespace augur::cpu
