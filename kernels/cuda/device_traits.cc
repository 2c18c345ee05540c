#include <mutex>
#include <vector>

#include "kernels/cuda/launch.h"

namespace augur::cuda {

const DeviceTraits& device_traits() {
  // One entry per device, filled when first asked for; entries stay where they are.
  static std::once_flag once;
  static std::vector<DeviceTraits> traits;
  std::call_once(once, [] {
    int num_devices = 0;
    AUGUR_CUDA(cudaGetDeviceCount(&num_devices));
    for (int device = 0; device < num_devices; ++device) {
      const auto attribute = [&](cudaDeviceAttr name) {
        int value = 0;
        AUGUR_CUDA(cudaDeviceGetAttribute(&value, name, device));
        return value;
      };
      traits.push_back({.num_sms = attribute(cudaDevAttrMultiProcessorCount),
                        .compute_capability = 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
                                              attribute(cudaDevAttrComputeCapabilityMinor),
                        .l2_bytes = attribute(cudaDevAttrL2CacheSize),
                        .max_smem_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin)});
    }
  });
  int device = 0;
  AUGUR_CUDA(cudaGetDevice(&device));
  return traits.at(device);
}

}  // namespace augur::cuda
