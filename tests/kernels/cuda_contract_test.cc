// The contract of kernels/ops.h, kept by the CUDA backend.
#include "kernels/cuda/cuda_ops.h"
#include "tests/kernels/ops_contract.h"

namespace augur::contract {

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OpsContract);

std::vector<Backend> backends() {
  if (num_cuda_devices() == 0) return {};
  // Inner results of a layer are bf16 too: twice what the CPU backends are given.
  return {{.name = "cuda",
           .make = [] { return make_cuda_ops(); },
           .product_tolerance = 1e-4f,
           .activation_tolerance = 4e-2f,
           .depends_on_row_count = true,
           .head_dim_multiple = 8}};
}

}  // namespace augur::contract

namespace augur {
namespace {

TEST(CudaOps, SaysWhatItCannotRun) {
  if (num_cuda_devices() == 0) GTEST_SKIP() << why_no_cuda();
  const auto ops = make_cuda_ops();
  const StepLimits fine = contract::contract_limits();
  EXPECT_EQ(ops->why_unsupported(fine), "");
  StepLimits odd_heads = fine;
  odd_heads.head_dim = 20;
  EXPECT_EQ(ops->why_unsupported(odd_heads),
            "head_dim is 20; accepted on CUDA: a multiple of 8 up to 256");
  StepLimits too_many = fine;
  too_many.max_seqs = 5000;
  EXPECT_EQ(ops->why_unsupported(too_many), "max_batch_size is 5000; accepted on CUDA: up to 4095");
}

TEST(CudaOps, RefusesADeviceThatIsNotThere) {
  EXPECT_THROW(make_cuda_ops(num_cuda_devices()), std::logic_error);
  EXPECT_THROW(make_cuda_ops(-1), std::logic_error);
}

}  // namespace
}  // namespace augur
