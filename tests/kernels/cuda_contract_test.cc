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
