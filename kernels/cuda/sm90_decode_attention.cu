#include "kernels/cuda/decode_attention_launch.cuh"

namespace augur::cuda {

void sm90_decode_attention(DecodeAttentionParams params, int64_t most_items, cudaStream_t stream) {
  decode::launch_decode_attention</*kBulk=*/true>(params, most_items, stream);
}

}  // namespace augur::cuda
