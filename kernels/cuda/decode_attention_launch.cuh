// Choosing the instantiation of decode_attention_kernel and its shared memory.
#pragma once

#include <algorithm>
#include <string>

#include "kernels/cuda/decode_attention_kernel.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/require.h"

namespace augur::cuda::decode {

template <bool kBulk, int kGroups, int kRows>
void launch_shape(DecodeAttentionParams& params, int64_t most_items, cudaStream_t stream) {
  using S = Shape<kBulk, kGroups, kRows>;
  // Each block takes 1 KiB more of the multiprocessor's than it asks for.
  const int64_t max_smem = (device_traits().max_smem_bytes + 1024) / S::kBlocksPerSm - 1024;
  const int64_t fit = (max_smem - S::fixed_bytes(params.num_seqs)) / S::bytes_per_stage();
  AUGUR_REQUIRE(fit >= 2, std::to_string(params.num_seqs) + " sequences leave no shared memory");
  constexpr int kMaxStages = SliceRing<kBulk, kGroups, kRows>::kMaxStages;
  params.num_stages = static_cast<int>(fit < kMaxStages ? fit : kMaxStages);
  const auto kernel = decode_attention_kernel<kBulk, kGroups, kRows>;
  static const bool is_allowed = [=] {
    allow_smem(kernel, max_smem);
    return true;
  }();
  static_cast<void>(is_allowed);
  const int64_t num_blocks =
      std::min<int64_t>(most_items, int64_t{S::kBlocksPerSm} * device_traits().num_sms);
  launch(kernel,
         {.grid = dim3(static_cast<unsigned>(num_blocks)),
          .block = dim3(S::kThreads),
          .smem_bytes = S::fixed_bytes(params.num_seqs) + params.num_stages * S::bytes_per_stage()},
         stream, params);
}

template <bool kBulk, int kGroups>
void launch_rows(DecodeAttentionParams& params, int64_t most_items, cudaStream_t stream) {
  return params.rows_per_unit <= 8 ? launch_shape<kBulk, kGroups, 8>(params, most_items, stream)
                                   : launch_shape<kBulk, kGroups, 16>(params, most_items, stream);
}

template <bool kBulk>
void launch_decode_attention(DecodeAttentionParams& params,
                             int64_t most_items,
                             cudaStream_t stream) {
  switch (num_kv_groups(params.head_dim)) {
    case 1:
      return launch_rows<kBulk, 1>(params, most_items, stream);
    case 2:
      return launch_rows<kBulk, 2>(params, most_items, stream);
    case 3:
      return launch_rows<kBulk, 3>(params, most_items, stream);
    default:
      return launch_rows<kBulk, 4>(params, most_items, stream);
  }
}

}  // namespace augur::cuda::decode
