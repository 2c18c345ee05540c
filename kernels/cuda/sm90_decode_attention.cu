#include <array>

#include "kernels/cuda/decode_attention_launch.cuh"

namespace augur::cuda {

void sm90_decode_attention(DecodeAttentionParams params, int num_blocks, cudaStream_t stream) {
  decode::launch_decode_attention</*kBulk=*/true>(params, num_blocks, stream);
}

int sm90_max_decode_clusters(int cluster_size) {
  // Of one shape: every one leaves a single block to a multiprocessor.
  static const std::array<int, kMaxDecodeCluster + 1> most = [] {
    const auto kernel = decode::decode_attention_kernel<true, true, 2, 8>;
    allow_smem(kernel, device_traits().max_smem_bytes);
    std::array<int, kMaxDecodeCluster + 1> counts = {};
    for (int size = 2; size <= kMaxDecodeCluster; size *= 2) {
      cudaLaunchAttribute attribute = {};
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim = {static_cast<unsigned>(size), 1, 1};
      cudaLaunchConfig_t config = {};
      config.gridDim = dim3(static_cast<unsigned>(size));
      config.blockDim = dim3(decode::kThreads);
      config.dynamicSmemBytes = static_cast<size_t>(device_traits().max_smem_bytes);
      config.attrs = &attribute;
      config.numAttrs = 1;
      AUGUR_CUDA(cudaOccupancyMaxActiveClusters(&counts[size], kernel, &config));
    }
    return counts;
  }();
  return most[cluster_size];
}

}  // namespace augur::cuda
