#include "kernels/cuda/prefill_attention.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/prefill_tiles.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

// A warp takes 16 query rows. Up to 128 columns eight warps walk 64 positions at a time and two
// blocks share a multiprocessor; beyond that the outputs fill the registers, and four warps by 32
// positions keep shared memory below the 99 KiB that the smallest of these devices has.
template <int kGroups>
struct Tiling {
  static constexpr int kWarps = kGroups <= 2 ? 8 : 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kQueryRows = kWarps * 16;
  static constexpr int kPositions = kGroups <= 2 ? 64 : 32;
  static constexpr int kQueryGroupBytes = kQueryRows * 128;
  static constexpr int kKvGroupBytes = kPositions * 128;
  static constexpr int kQueryBytes = kGroups * kQueryGroupBytes;
  static constexpr int kKvBytes = kGroups * kKvGroupBytes;
  static constexpr int kSmemBytes = kQueryBytes + 2 * kKvBytes;
};

// Starts copying kPositions keys (or values, with half_block) of the head from `first` on, zeros
// from `end` on. A thread stays within 16 positions, which one block of the cache holds.
template <int kGroups>
__device__ __forceinline__ void copy_positions(const PrefillKernelArgs& args,
                                               const int32_t* block_table,
                                               int64_t block_bytes,
                                               int64_t head_offset,
                                               int first,
                                               int end,
                                               uint32_t smem) {
  using T = Tiling<kGroups>;
  constexpr int kRuns = T::kPositions / 16;
  constexpr int kThreadsPerRun = T::kThreads / kRuns;
  constexpr int kChunksPerRun = 16 * 8;  // of one group
  static_assert(kThreadsPerRun <= kChunksPerRun);
  const int run = static_cast<int>(threadIdx.x) / kThreadsPerRun;
  const int position = first + run * 16;
  const std::byte* from = args.cache;
  if (position < end) {
    const int block = block_table[position / args.block_size];
    from += block * block_bytes + head_offset + position % args.block_size * 128;
  }
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int i = 0; i < kChunksPerRun / kThreadsPerRun; ++i) {
      const int chunk = static_cast<int>(threadIdx.x) % kThreadsPerRun + i * kThreadsPerRun;
      const bool is_valid = position + chunk / 8 < end;
      copy_async_16(
          smem + group * T::kKvGroupBytes + run * 2048 + chunk * 16,
          is_valid ? from + int64_t{group} * args.block_size * 128 + chunk * 16 : args.cache,
          is_valid);
    }
  }
}

template <int kGroups>
__global__ void __launch_bounds__(Tiling<kGroups>::kThreads, kGroups <= 2 ? 2 : 1)
    mma_prefill_kernel(PrefillKernelArgs args) {
  using T = Tiling<kGroups>;
  wait_for_previous_kernels();
  let_next_kernel_start();
  extern __shared__ __align__(1024) char smem[];
  const uint32_t q_smem = smem_address(smem);
  const uint32_t k_smem = q_smem + T::kQueryBytes;
  const uint32_t v_smem = k_smem + T::kKvBytes;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;

  // Find the work
  const int kv_head = static_cast<int>(blockIdx.x) % args.num_kv_heads;
  QueryTile tile;
  if (!prefill::find_query_tile<T::kQueryRows>(
          args.batch, args.group.size, static_cast<int>(blockIdx.x) / args.num_kv_heads, tile)) {
    return;
  }
  const prefill::SeenPositions seen =
      prefill::seen_positions(tile, T::kQueryRows, args.group, args.window);
  const int32_t* const block_table =
      args.batch.block_table + tile.sequence * args.batch.block_table_stride;
  const int64_t block_bytes = kv_block_bytes(args.block_size, args.num_kv_heads, args.head_dim);
  const int64_t k_offset = kv_head_offset(args.block_size, args.head_dim, kv_head);
  const int64_t v_offset = k_offset + block_bytes / 2;
  const int num_steps = prefill::ceil_divide(seen.end, T::kPositions) - seen.begin / T::kPositions;
  int first = (prefill::ceil_divide(seen.end, T::kPositions) - 1) * T::kPositions;

  // Load the query rows, zeros past the sequence and past the head
  for (int row = warp * 32; row < T::kQueryRows; row += T::kThreads) {
    prefill::copy_query_rows<kGroups>(args, tile, kv_head, row, q_smem + row * 128,
                                      T::kQueryGroupBytes);
  }
  if (num_steps > 0) {
    copy_positions<kGroups>(args, block_table, block_bytes, k_offset, first, seen.end, k_smem);
  }
  copy_async_commit();

  const int rows[2] = {warp * 16 + lane / 4, warp * 16 + lane / 4 + 8};
  const int positions[2] = {prefill::row_position(tile, rows[0], args.group),
                            prefill::row_position(tile, rows[1], args.group)};
  // What ldmatrix is given by this lane: a row of 128 bytes, and which half of 32 bytes.
  const int row_in_16 = lane % 16;
  const uint32_t q_row = q_smem + (warp * 16 + row_in_16) * 128;
  const int k_row = lane / 16 * 8 + lane % 8;
  float out[kGroups * 32] = {};
  prefill::RowPair softmax;
  for (int step = 0; step < num_steps; ++step, first -= T::kPositions) {
    copy_positions<kGroups>(args, block_table, block_bytes, v_offset, first, seen.end, v_smem);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();  // the keys are there

    // Scores of 16 rows by kPositions
    float scores[T::kPositions / 2] = {};
#pragma unroll
    for (int k = 0; k < kGroups * 4; ++k) {
      uint32_t q[4];
      load_matrix_x4(q, q_row + k / 4 * T::kQueryGroupBytes +
                            ((k % 4 * 2 + lane / 16) ^ (row_in_16 % 8)) * 16);
#pragma unroll
      for (int n = 0; n < T::kPositions / 16; ++n) {
        uint32_t keys[4];
        load_matrix_x4(keys, k_smem + k / 4 * T::kKvGroupBytes + (n * 16 + k_row) * 128 +
                                 ((k % 4 * 2 + lane / 8 % 2) ^ (k_row % 8)) * 16);
        mma_16x8x16(*reinterpret_cast<float(*)[4]>(&scores[8 * n]), q, keys[0], keys[1]);
        mma_16x8x16(*reinterpret_cast<float(*)[4]>(&scores[8 * n + 4]), q, keys[2], keys[3]);
      }
    }
    __syncthreads();  // the keys are read
    if (step + 1 < num_steps) {
      copy_positions<kGroups>(args, block_table, block_bytes, k_offset, first - T::kPositions,
                              seen.end, k_smem);
    }
    copy_async_commit();

    if (first + T::kPositions > seen.causal_full || first < seen.window_full) {
      prefill::mask_scores(scores, first + lane % 4 * 2, positions, args.window);
    }
    float rescale[2];
    prefill::weigh_scores(scores, softmax, args.scale_log2, rescale);
    if (prefill::any_rescale(rescale)) {
#pragma unroll
      for (int i = 0; i < kGroups * 32; ++i) out[i] *= rescale[i / 2 % 2];
    }
    copy_async_wait<1>();
    __syncthreads();  // the values are there
#pragma unroll
    for (int k = 0; k < T::kPositions / 16; ++k) {
      uint32_t weights[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        weights[i] = pack_bf16(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
      }
#pragma unroll
      for (int n = 0; n < kGroups * 4; ++n) {
        uint32_t values[4];
        load_matrix_x4_transposed(values, v_smem + n / 4 * T::kKvGroupBytes +
                                              (k * 16 + row_in_16) * 128 +
                                              ((n % 4 * 2 + lane / 16) ^ (row_in_16 % 8)) * 16);
        mma_16x8x16(*reinterpret_cast<float(*)[4]>(&out[8 * n]), weights, values[0], values[1]);
        mma_16x8x16(*reinterpret_cast<float(*)[4]>(&out[8 * n + 4]), weights, values[2], values[3]);
      }
    }
    __syncthreads();  // the values are read
  }

  copy_async_wait<0>();
  __syncthreads();  // where nothing was seen, copies of the query rows may still be under way
  float reciprocal[2];
  prefill::reciprocal_sums(args, tile, kv_head, rows, softmax, reciprocal);
  prefill::store_rows(args, tile, kv_head, warp * 16, out, reciprocal, smem + warp * 16 * 128,
                      T::kQueryGroupBytes);
}

template <int kGroups>
void launch_mma_prefill(const PrefillKernelArgs& args, cudaStream_t stream) {
  using T = Tiling<kGroups>;
  allow_smem(mma_prefill_kernel<kGroups>, T::kSmemBytes);
  launch(mma_prefill_kernel<kGroups>,
         {.grid =
              dim3(static_cast<unsigned>(max_query_tiles(args, T::kQueryRows) * args.num_kv_heads)),
          .block = dim3(T::kThreads),
          .smem_bytes = T::kSmemBytes},
         stream, args);
}

}  // namespace

PrefillKernelArgs prefill_kernel_args(const PrefillAttentionArgs& args) {
  const AttentionArgs& attention = args.attention;
  const KvCacheLayer& cache = attention.cache;
  AUGUR_REQUIRE(attention.q.dtype == DType::kBF16 && attention.out.dtype == DType::kBF16,
                "q and out must be bf16");
  AUGUR_REQUIRE(cache.head_dim > 0 && cache.head_dim % 8 == 0 && cache.head_dim <= 256,
                std::to_string(cache.head_dim));
  AUGUR_REQUIRE(cache.block_size > 0 && cache.block_size % 16 == 0,
                std::to_string(cache.block_size));
  AUGUR_REQUIRE(
      cache.num_kv_heads > 0 && attention.num_heads % cache.num_kv_heads == 0,
      std::to_string(attention.num_heads) + " heads over " + std::to_string(cache.num_kv_heads));
  AUGUR_REQUIRE(
      attention.q.row_stride % 8 == 0 && attention.out.row_stride % 8 == 0,
      std::to_string(attention.q.row_stride) + " and " + std::to_string(attention.out.row_stride));
  AUGUR_REQUIRE((reinterpret_cast<uintptr_t>(attention.q.data) |
                 reinterpret_cast<uintptr_t>(attention.out.data)) %
                        16 ==
                    0,
                "q and out must be 16-byte aligned");
  AUGUR_REQUIRE(attention.scale > 0, std::to_string(attention.scale));
  // Rows of a sequence, counted with the heads of a group, are divided by multiplication.
  const int64_t group_size = attention.num_heads / cache.num_kv_heads;
  AUGUR_REQUIRE((attention.batch.num_tokens + 128) * group_size * group_size < int64_t{1} << 32,
                std::to_string(attention.batch.num_tokens) + " rows of " +
                    std::to_string(group_size) + " heads per KV head");
  AUGUR_REQUIRE(args.window >= 0, std::to_string(args.window));
  return {.q = attention.q.row<const __nv_bfloat16>(0),
          .q_stride = attention.q.row_stride,
          .out = attention.out.row<__nv_bfloat16>(0),
          .out_stride = attention.out.row_stride,
          .cache = cache.data,
          .block_size = cache.block_size,
          .num_kv_heads = cache.num_kv_heads,
          .head_dim = cache.head_dim,
          .group = Divisor(static_cast<int>(group_size)),
          .scale_log2 = attention.scale * prefill::kLog2E,
          .window = args.window,
          .sinks = args.sinks,
          .batch = attention.batch};
}

int64_t max_query_tiles(const PrefillKernelArgs& args, int tile_rows) {
  // The sum of (rows + tile_rows - 1) / tile_rows over the sequences, rounded down once.
  const int64_t num_rows = args.batch.num_tokens * args.group.size;
  return (num_rows + int64_t{args.batch.num_seqs} * (tile_rows - 1)) / tile_rows;
}

void mma_prefill_attention(const PrefillAttentionArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("mma_prefill_attention");
  const PrefillKernelArgs kernel_args = prefill_kernel_args(args);
  if (kernel_args.batch.num_tokens == 0 || kernel_args.batch.num_seqs == 0) return;
  switch (num_kv_groups(kernel_args.head_dim)) {
    case 1:
      return launch_mma_prefill<1>(kernel_args, stream);
    case 2:
      return launch_mma_prefill<2>(kernel_args, stream);
    case 3:
      return launch_mma_prefill<3>(kernel_args, stream);
    default:
      return launch_mma_prefill<4>(kernel_args, stream);
  }
}

void prefill_attention(const PrefillAttentionArgs& args, cudaStream_t stream) {
  if (device_traits().is_hopper()) return sm90_prefill_attention(args, stream);
  mma_prefill_attention(args, stream);
}

double prefill_attention_flops(
    int num_heads, int head_dim, int64_t num_rows, int64_t context_len, int window) {
  double num_pairs = 0;
  for (int64_t row = 0; row < num_rows; ++row) {
    const int64_t num_seen = context_len - num_rows + row + 1;
    num_pairs += static_cast<double>(window == 0 ? num_seen : std::min<int64_t>(num_seen, window));
  }
  return 4.0 * num_heads * head_dim * num_pairs;
}

}  // namespace augur::cuda
