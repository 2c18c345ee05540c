#include "kernels/cuda/round_bias.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void round_bias_kernel(const float* bias, int64_t count, __nv_bfloat16* rounded) {
  let_next_kernel_start();
  wait_for_previous_kernels();  // the product before this one may still read `rounded`
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) rounded[i] = __float2bfloat16(bias[i]);
}

}  // namespace

void round_bias(const float* bias, int64_t count, void* rounded, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("round_bias");
  if (count == 0) return;
  launch(round_bias_kernel,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(count, kThreads))),
          .block = dim3(kThreads)},
         stream, bias, count, static_cast<__nv_bfloat16*>(rounded));
}

}  // namespace augur::cuda
