#include "kernels/cuda/sample_kernels.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/row_draw.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

template <int kBlocks, bool kFilters>
__global__ __launch_bounds__(kRowThreads, kFilters ? 2 : 3) void sample_kernel(
    const __grid_constant__ SampleParams params) {
  extern __shared__ __align__(16) float slice_memory[];
  __shared__ DrawShared<kBlocks> shared;
  wait_for_previous_kernels();
  let_next_kernel_start();
  row_arrive<kBlocks>();
  float* memory = slice_memory;
  if constexpr (kBlocks == 1) {
    memory = params.adjusted_rows + int64_t{blockIdx.x} * ((params.vocab_size + 3) / 4 * 4);
  }
  const int64_t first_row = blockIdx.x / kBlocks;
  for (int64_t row = first_row; row < params.num_rows; row += gridDim.x / kBlocks) {
    RowDraw<kBlocks>(params, shared, row, memory).template run<kFilters>(row == first_row);
    if constexpr (kBlocks == 1) __syncthreads();  // a cluster has one row
  }
}

// --- Largest logits alone
// -------------------------------------------------------------------------

template <int kBlocks>
__global__ __launch_bounds__(kRowThreads) void argmax_kernel(ArgmaxParams params) {
  __shared__ Key parts[kBlocks];
  __shared__ Key warp_keys[kRowWarps];
  wait_for_previous_kernels();
  let_next_kernel_start();
  row_arrive<kBlocks>();
  const int64_t row = blockIdx.x / kBlocks;
  const RowSlice slice =
      slice_in_place<kBlocks>(params.logits + row * params.row_stride, params.vocab_size);
  const Key best = block_max(glance_all<false>(slice, 0).best, warp_keys);
  row_wait<kBlocks>();  // all blocks have begun
  if (threadIdx.x == 0) *in_block<kBlocks>(&parts[block_rank<kBlocks>()], 0) = best;
  row_barrier<kBlocks>();
  if (block_rank<kBlocks>() != 0 || threadIdx.x != 0) return;
  Key row_best = 0;
  for (int i = 0; i < kBlocks; ++i) row_best = max(row_best, parts[i]);
  params.token_ids[row] = row_best < kAboveMinusInfinity ? 0 : id_of(row_best);
}

int64_t slice_bytes(int64_t vocab_size) {
  return int64_t{slice_capacity(vocab_size, kClusterBlocks)} * 4;
}
// What the kernels' own shared memory, however it is laid out, leaves to slices.
int64_t max_slice_bytes() {
  constexpr int64_t kOwnBytes =
      ceil_div<int64_t>(sizeof(DrawShared<kClusterBlocks>), 1024) * 1024 + 1024;
  return device_traits().max_smem_bytes - kOwnBytes;
}

template <int kBlocks>
Launch row_launch(int64_t num_rows, int64_t smem_bytes) {
  return {.grid = dim3(static_cast<unsigned>(num_rows * kBlocks)),
          .block = dim3(kRowThreads),
          .smem_bytes = smem_bytes,
          .cluster_size = kBlocks};
}

}  // namespace

bool fits_cluster(int64_t vocab_size) {
  return device_traits().is_hopper() && slice_bytes(vocab_size) <= max_slice_bytes();
}

void argmax_rows(const ArgmaxParams& params, bool uses_cluster, cudaStream_t stream) {
  if (uses_cluster) {
    launch(argmax_kernel<kClusterBlocks>, row_launch<kClusterBlocks>(params.num_rows, 0), stream,
           params);
  } else {
    launch(argmax_kernel<1>, row_launch<1>(params.num_rows, 0), stream, params);
  }
}

void sample_rows(const SampleParams& params,
                 bool uses_cluster,
                 int num_blocks,
                 cudaStream_t stream) {
  if (!uses_cluster) {
    launch(params.has_filters ? sample_kernel<1, true> : sample_kernel<1, false>,
           row_launch<1>(std::min(params.num_rows, num_blocks), 0), stream, params);
    return;
  }
  static const bool is_allowed = [] {
    allow_smem(sample_kernel<kClusterBlocks, true>, max_slice_bytes());
    allow_smem(sample_kernel<kClusterBlocks, false>, max_slice_bytes());
    return true;
  }();
  AUGUR_REQUIRE(is_allowed && fits_cluster(params.vocab_size), std::to_string(params.vocab_size));
  // Without lists nothing is adjusted, and rows stay where they are.
  const int64_t smem_bytes = params.lists == nullptr ? 0 : slice_bytes(params.vocab_size);
  launch(params.has_filters ? sample_kernel<kClusterBlocks, true>
                            : sample_kernel<kClusterBlocks, false>,
         row_launch<kClusterBlocks>(params.num_rows, smem_bytes), stream, params);
}

}  // namespace augur::cuda
