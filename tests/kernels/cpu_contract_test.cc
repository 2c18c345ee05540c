// The contract of kernels/ops.h, kept by the fast CPU backend with every instruction set here.
#include "kernels/cpu/cpu_ops.h"
#include "tests/kernels/available_isas.h"
#include "tests/kernels/ops_contract.h"

namespace augur::contract {

std::vector<Backend> backends() {
  std::vector<Backend> backends;
  for (cpu::Isa isa : cpu::available_isas()) {
    // A bf16 number is within 2^-9 of what it stands for, and attention rounds queries, keys,
    // values and probabilities.
    backends.push_back({std::string(cpu::isa_name(isa)),
                        [isa] { return make_cpu_ops(/*num_threads=*/3, isa); },
                        /*product_tolerance=*/1e-5f, /*activation_tolerance=*/2e-2f});
  }
  return backends;
}

}  // namespace augur::contract

namespace augur {
namespace {

TEST(CpuOps, SaysWhatItRunsOn) {
  EXPECT_EQ(make_cpu_ops(2, cpu::Isa::kPortable)->description(), "cpu portable, 2 threads");
  EXPECT_EQ(make_cpu_ops(1)->description(),
            "cpu " + std::string(cpu::isa_name(cpu::best_isa())) + ", 1 thread");
}

TEST(CpuOps, RefusesAnInstructionSetTheMachineLacks) {
  if (cpu::has_isa(cpu::Isa::kAmx)) GTEST_SKIP() << "this machine has them all";
  EXPECT_THROW(make_cpu_ops(1, cpu::Isa::kAmx), std::logic_error);
}

TEST(CpuOps, RefusesStepsBeyondWhatWasReserved) {
  auto ops = make_cpu_ops(1, cpu::Isa::kPortable);
  StepLimits limits;
  limits.max_tokens = 2;
  limits.max_logit_rows = 1;
  limits.max_context = 16;
  limits.hidden_size = 32;
  limits.vocab_size = 32;
  limits.num_heads = 1;
  limits.head_dim = 32;
  ops->reserve(limits);
  Buffer weights = ops->allocate(ops->packed_bytes(MatrixUse::kProjection, 512, 512));
  Buffer x = ops->allocate(64 * 512 * 2);
  Buffer out = ops->allocate(64 * 512 * 4);
  LinearArgs args;
  args.x = dense(x.data(), DType::kBF16, 64, 512);
  args.weight = {weights.data(), 512, 512};
  args.out = dense(out.data(), DType::kF32, 64, 512);
  EXPECT_THROW(ops->linear(args), std::logic_error);
}

}  // namespace
}  // namespace augur
