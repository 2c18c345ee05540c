// Stands in for the backend in a build without CUDA.
#include "kernels/cuda/cuda_ops.h"
#include "kernels/require.h"

namespace augur {

int num_cuda_devices() {
  return 0;
}

std::string why_no_cuda() {
  return "this build has no CUDA backend (configure with -DAUGUR_CUDA=on, which needs nvcc)";
}

std::unique_ptr<Ops> make_cuda_ops(int device) {
  AUGUR_REQUIRE(device < num_cuda_devices(), why_no_cuda());
  return nullptr;
}

}  // namespace augur
