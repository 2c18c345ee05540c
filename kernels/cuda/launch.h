// Launching kernels: checked, with programmatic dependent launch, named in profiles.
#pragma once

#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>

#include <cstdint>
#include <utility>

#include "kernels/cuda/check.h"

namespace augur::cuda {

/// A range in the profiler's time line, as long as the object lives.
class NvtxRange {
 public:
  explicit NvtxRange(const char* name) { nvtxRangePushA(name); }
  ~NvtxRange() { nvtxRangePop(); }
  NvtxRange(const NvtxRange&) = delete;
  NvtxRange& operator=(const NvtxRange&) = delete;
};

#define AUGUR_NVTX_RANGE(name) const ::augur::cuda::NvtxRange augur_nvtx_range(name)

template <typename Int>
constexpr Int ceil_div(Int a, Int b) {
  return (a + b - 1) / b;
}

/// How a kernel is launched.
struct Launch {
  dim3 grid;
  dim3 block;
  int64_t smem_bytes = 0;  // dynamic; above 48 KiB see allow_smem
  int cluster_size = 1;    // along x
};

/// Lets `kernel` use more than 48 KiB of dynamic shared memory. Once per kernel and device.
template <typename Kernel>
void allow_smem(Kernel* kernel, int64_t smem_bytes) {
  AUGUR_CUDA(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                  cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(smem_bytes)));
}

/// Queues a kernel that may start before those ahead of it in the stream have ended: it must call
/// wait_for_previous_kernels (ptx.cuh). The arguments are converted to the kernel's own types.
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), const Launch& how, cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(how.cluster_size);
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = how.grid;
  config.blockDim = how.block;
  config.dynamicSmemBytes = static_cast<size_t>(how.smem_bytes);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = how.cluster_size > 1 ? 2 : 1;
  AUGUR_CUDA(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...));
}

/// What kernels are fitted to; read once from the device.
struct DeviceTraits {
  int num_sms = 0;
  int compute_capability = 0;  // 90 for 9.0
  int64_t l2_bytes = 0;
  int64_t max_smem_bytes = 0;                                  // dynamic, of one block
  bool is_hopper() const { return compute_capability == 90; }  // has the sm_90a kernels
};
/// Of the current device.
const DeviceTraits& device_traits();

}  // namespace augur::cuda
