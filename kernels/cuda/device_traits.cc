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

int64_t prefetched_bytes(const PackedMatrix& projection, int64_t num_rows) {
  constexpr int64_t kMaxRows = 64;
  if (projection.data == nullptr || num_rows > kMaxRows) return 0;
  const int64_t num_bytes = projection.num_rows * projection.num_cols * 2;
  return num_bytes <= device_traits().l2_bytes / 2 ? num_bytes : 0;
}

}  // namespace augur::cuda
