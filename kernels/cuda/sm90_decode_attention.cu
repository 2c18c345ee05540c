#include "kernels/cuda/decode_attention_launch.cuh"

namespace augur::cuda {

void sm90_decode_attention(DecodeAttentionParams params, int num_blocks, cudaStream_t stream) {
  decode::launch_decode_attention</*kBulk=*/true>(params, num_blocks, stream);
}

}  // namespace augur::cuda
