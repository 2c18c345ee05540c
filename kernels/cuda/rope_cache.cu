#include "kernels/cuda/rope_cache.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_access.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;
constexpr int kMaxHeadDim = 256;

// Where column `col` of the first key head of a slot's position lies, and how far the next head is
// from there. Heads of values are counted on after those of keys, which they follow in the block.
__device__ __forceinline__ std::byte* cached_column(const KvCacheLayer& cache, int slot, int col) {
  const int block = slot / cache.block_size;
  return cache.data + block * kv_block_bytes(cache.block_size, cache.num_kv_heads, cache.head_dim) +
         kv_value_offset(cache.block_size, slot - block * cache.block_size, col);
}
__device__ __forceinline__ int64_t cached_head_stride(const KvCacheLayer& cache) {
  return kv_head_offset(cache.block_size, cache.head_dim, 1);
}

// --- Heads of a multiple of 8 columns: kLanes lanes per head, eight columns each.

constexpr int kMaxThreads = 256;

// What the eight columns of a lane turn by: itself times cos, plus its partner times sin, which is
// negative for the first of a pair.
struct Angles {
  float cos[8];
  float sin[8];
};

template <bool kIsInterleaved>
__device__ __forceinline__ void load_angles(const RopeTable& rope,
                                            int64_t position,
                                            int col,
                                            Angles& angles) {
  const int half = rope.rotary_dim / 2;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    angles.cos[i] = 1;
    angles.sin[i] = 0;
  }
  if (col >= rope.rotary_dim) return;
  if constexpr (kIsInterleaved) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (col + i >= rope.rotary_dim) continue;
      const int64_t at = position * half + (col + i) / 2;
      angles.cos[i] = rope.cos[at];
      angles.sin[i] = i % 2 == 0 ? -rope.sin[at] : rope.sin[at];
    }
  } else {
    const int64_t at = position * half + (col < half ? col : col - half);
    load_values(rope.cos + at, angles.cos);
    load_values(rope.sin + at, angles.sin);
    if (col < half) {
#pragma unroll
      for (int i = 0; i < 8; ++i) angles.sin[i] = -angles.sin[i];
    }
  }
}

// A block per token (and share of its heads). The next head is on its way while one is turned.
template <typename In, int kLanes, bool kIsInterleaved>
__global__ void __launch_bounds__(kMaxThreads, 3)
    rope_and_cache_kernel(RopeAndCacheArgs args) {
  const int head_dim = args.cache.head_dim;
  const int num_kv_heads = args.cache.num_kv_heads;
  const int num_heads = args.num_heads + 2 * num_kv_heads;
  const int col = static_cast<int>(threadIdx.x) % kLanes * 8;
  const bool has_col = col < head_dim;
  const float inverse_dim = 1.0f / static_cast<float>(head_dim);
  float q_norm[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  float k_norm[8] = {1, 1, 1, 1, 1, 1, 1, 1};
  if (args.q_norm != nullptr && has_col) load_values(args.q_norm + col, q_norm);
  if (args.k_norm != nullptr && has_col) load_values(args.k_norm + col, k_norm);
  let_next_kernel_start();
  wait_for_previous_kernels();

  const int64_t token = blockIdx.x;
  const int heads_per_block = static_cast<int>(blockDim.x) / kLanes;
  const int head_stride = static_cast<int>(gridDim.y) * heads_per_block;
  int head =
      static_cast<int>(blockIdx.y) * heads_per_block + static_cast<int>(threadIdx.x) / kLanes;
  const In* const qkv = row_of<const In>(args.qkv, token) + col;
  // As they lie in memory: half the registers where that is bf16.
  alignas(16) In next[8] = {};
  const auto bring = [&](int from_head) {
    if (!has_col || from_head >= num_heads) return;
    const auto* const from = reinterpret_cast<const uint4*>(qkv + int64_t{from_head} * head_dim);
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(next) / sizeof(uint4)); ++i) {
      reinterpret_cast<uint4*>(next)[i] = from[i];
    }
  };
  bring(head);
  const int slot = static_cast<int>(args.kv_slots[token]);
  Angles angles;
  load_angles<kIsInterleaved>(args.rope, args.positions[token], col, angles);

  const bool is_cached = slot >= 0 && col < num_kv_groups(head_dim) * kKvGroupCols;
  std::byte* const cached = cached_column(args.cache, slot, col);
  const int64_t cached_stride = cached_head_stride(args.cache);

  // The lane that has the partners of this one's columns, where they are not its own.
  const int half = args.rope.rotary_dim / 2;
  int partner = static_cast<int>(threadIdx.x) % kWarpLanes;
  if (col < args.rope.rotary_dim) partner += col < half ? half / 8 : -half / 8;

  // All lanes of a warp go round as often, for the shuffles.
  const int num_rounds =
      (num_heads - static_cast<int>(blockIdx.y) * heads_per_block + head_stride - 1) / head_stride;
  for (int round = 0; round < num_rounds; ++round, head += head_stride) {
    float x[8];
    load_values(next, x);
    bring(head + head_stride);
    const bool is_query = head < args.num_heads;
    const bool is_value = head >= args.num_heads + num_kv_heads;

    float sum_of_squares = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) sum_of_squares += x[i] * x[i];
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
      sum_of_squares += __shfl_xor_sync(0xFFFFFFFFu, sum_of_squares, distance);
    }
    if (!is_value && (is_query ? args.q_norm : args.k_norm) != nullptr) {
      const float scale = rsqrtf(sum_of_squares * inverse_dim + args.norm_eps);
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] *= scale * (is_query ? q_norm[i] : k_norm[i]);
    }

    float other[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) other[i] = x[i ^ 1];
    if constexpr (!kIsInterleaved) {
#pragma unroll
      for (int i = 0; i < 8; ++i) other[i] = __shfl_sync(0xFFFFFFFFu, x[i], partner);
    }
    if (!is_value) {
#pragma unroll
      for (int i = 0; i < 8; ++i) x[i] = x[i] * angles.cos[i] + other[i] * angles.sin[i];
    }

    if (head >= num_heads) continue;
    if (is_query) {
      if (has_col) {
        store_values(row_of<__nv_bfloat16>(args.q_out, token) + int64_t{head} * head_dim + col, x);
      }
    } else if (is_cached) {
      store_values(
          reinterpret_cast<__nv_bfloat16*>(cached + (head - args.num_heads) * cached_stride), x);
    }
  }
}

// --- Any sizes: a warp per head, the columns of a lane 32 apart.

constexpr int kPlainWarps = 8;
constexpr int kPlainColumns = kMaxHeadDim / kWarpLanes;

template <typename In>
__global__ void __launch_bounds__(kPlainWarps* kWarpLanes)
    plain_rope_and_cache_kernel(RopeAndCacheArgs args) {
  __shared__ float turning[kPlainWarps][kMaxHeadDim];
  const int warp = threadIdx.x / kWarpLanes;
  const int lane = threadIdx.x % kWarpLanes;
  const int head_dim = args.cache.head_dim;
  const int num_kv_heads = args.cache.num_kv_heads;
  const int rotary_dim = args.rope.rotary_dim;
  const int half = rotary_dim / 2;
  const bool is_interleaved = args.rope.is_interleaved;
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t token = blockIdx.x;
  const int64_t first_angle = int64_t{args.positions[token]} * half;
  const int slot = static_cast<int>(args.kv_slots[token]);
  const int num_heads = args.num_heads + 2 * num_kv_heads;
  for (int head = blockIdx.y * kPlainWarps + warp; head < num_heads;
       head += gridDim.y * kPlainWarps) {
    const bool is_query = head < args.num_heads;
    const bool is_value = head >= args.num_heads + num_kv_heads;
    const In* const from = row_of<const In>(args.qkv, token) + int64_t{head} * head_dim;
    float x[kPlainColumns];
    float sum_of_squares = 0;
#pragma unroll
    for (int c = 0; c < kPlainColumns; ++c) {
      const int col = c * kWarpLanes + lane;
      x[c] = col < head_dim ? static_cast<float>(from[col]) : 0.0f;
      sum_of_squares += x[c] * x[c];
    }
    const float* const weight = is_value ? nullptr : (is_query ? args.q_norm : args.k_norm);
    if (weight != nullptr) {
      const float scale =
          1.0f / sqrtf(warp_sum(sum_of_squares) / static_cast<float>(head_dim) + args.norm_eps);
#pragma unroll
      for (int c = 0; c < kPlainColumns; ++c) {
        const int col = c * kWarpLanes + lane;
        if (col < head_dim) x[c] *= scale * weight[col];
      }
    }
    if (!is_value) {
      // The other of a pair may be with any lane: pass all through shared memory.
      __syncwarp();
#pragma unroll
      for (int c = 0; c < kPlainColumns; ++c) turning[warp][c * kWarpLanes + lane] = x[c];
      __syncwarp();
#pragma unroll
      for (int c = 0; c < kPlainColumns; ++c) {
        const int col = c * kWarpLanes + lane;
        if (col >= rotary_dim) continue;
        const bool is_first = is_interleaved ? col % 2 == 0 : col < half;
        const int other = is_interleaved ? col ^ 1 : (is_first ? col + half : col - half);
        const int64_t angle = first_angle + (is_interleaved ? col / 2 : min(col, other));
        const float turn = turning[warp][other] * args.rope.sin[angle];
        x[c] = x[c] * args.rope.cos[angle] + (is_first ? -turn : turn);
      }
    }
    const int padded_dim = num_kv_groups(head_dim) * kKvGroupCols;
#pragma unroll
    for (int c = 0; c < kPlainColumns; ++c) {
      const int col = c * kWarpLanes + lane;
      const __nv_bfloat16 value = __float2bfloat16(x[c]);
      if (is_query) {
        if (col < head_dim) {
          row_of<__nv_bfloat16>(args.q_out, token)[int64_t{head} * head_dim + col] = value;
        }
      } else if (slot >= 0 && col < padded_dim) {
        *reinterpret_cast<__nv_bfloat16*>(cached_column(args.cache, slot, col) +
                                          (head - args.num_heads) *
                                              cached_head_stride(args.cache)) = value;
      }
    }
  }
}

// Whether every lane of the fast kernel has all its columns, aligned, and their partners too.
bool can_turn_by_eight(const RopeAndCacheArgs& args) {
  const RopeTable& rope = args.rope;
  return args.cache.head_dim % 8 == 0 && (rope.is_interleaved || rope.rotary_dim % 16 == 0) &&
         has_aligned_rows(args.qkv.data, args.qkv.row_stride * dtype_bytes(args.qkv.dtype)) &&
         has_aligned_rows(args.q_out.data, args.q_out.row_stride * 2) &&
         has_aligned_rows(args.q_norm, 0) && has_aligned_rows(args.k_norm, 0) &&
         has_aligned_rows(rope.cos, 0) && has_aligned_rows(rope.sin, 0);
}

// Few tokens: the heads of one go to several blocks, so that all are at work at once.
int64_t blocks_per_token(int64_t num_tokens, int64_t max_blocks) {
  return std::clamp<int64_t>(ceil_div<int64_t>(4 * device_traits().num_sms, num_tokens), 1,
                             max_blocks);
}

template <typename In, int kLanes>
void launch_by_eight(const RopeAndCacheArgs& args, cudaStream_t stream) {
  constexpr int kHeadsPerWarp = kWarpLanes / kLanes;
  constexpr int kMaxHeads = kMaxThreads / kLanes;
  const int num_heads = args.num_heads + 2 * args.cache.num_kv_heads;
  const int64_t num_blocks = blocks_per_token(args.qkv.num_rows, ceil_div(num_heads, kMaxHeads));
  // Blocks of as few heads as take no more rounds.
  const int64_t num_rounds = ceil_div<int64_t>(num_heads, kMaxHeads * num_blocks);
  const int64_t num_warps =
      ceil_div<int64_t>(ceil_div<int64_t>(num_heads, num_rounds * num_blocks), kHeadsPerWarp);
  launch(args.rope.is_interleaved ? rope_and_cache_kernel<In, kLanes, true>
                                  : rope_and_cache_kernel<In, kLanes, false>,
         {.grid = dim3(static_cast<unsigned>(args.qkv.num_rows), static_cast<unsigned>(num_blocks)),
          .block = dim3(static_cast<unsigned>(num_warps * kWarpLanes))},
         stream, args);
}

template <typename In>
void launch_rope(const RopeAndCacheArgs& args, cudaStream_t stream) {
  const int head_dim = args.cache.head_dim;
  if (!can_turn_by_eight(args)) {
    const int num_heads = args.num_heads + 2 * args.cache.num_kv_heads;
    launch(plain_rope_and_cache_kernel<In>,
           {.grid = dim3(static_cast<unsigned>(args.qkv.num_rows),
                         static_cast<unsigned>(blocks_per_token(args.qkv.num_rows,
                                                                ceil_div(num_heads, kPlainWarps)))),
            .block = dim3(kPlainWarps * kWarpLanes)},
           stream, args);
  } else if (head_dim <= 64) {
    launch_by_eight<In, 8>(args, stream);
  } else if (head_dim <= 128) {
    launch_by_eight<In, 16>(args, stream);
  } else {
    launch_by_eight<In, 32>(args, stream);
  }
}

}  // namespace

void rope_and_cache(const RopeAndCacheArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("rope_and_cache");
  const int head_dim = args.cache.head_dim;
  AUGUR_REQUIRE(head_dim >= 1 && head_dim <= kMaxHeadDim, "head_dim " + std::to_string(head_dim));
  AUGUR_REQUIRE(
      args.rope.rotary_dim >= 0 && args.rope.rotary_dim % 2 == 0 &&
          args.rope.rotary_dim <= head_dim,
      "rotary_dim " + std::to_string(args.rope.rotary_dim) + " of " + std::to_string(head_dim));
  AUGUR_REQUIRE(args.cache.num_blocks * args.cache.block_size <= INT32_MAX,
                std::to_string(args.cache.num_blocks) + " blocks");
  const int64_t num_cols = int64_t{args.num_heads + 2 * args.cache.num_kv_heads} * head_dim;
  AUGUR_REQUIRE(args.qkv.num_cols == num_cols && args.q_out.dtype == DType::kBF16 &&
                    args.q_out.num_rows == args.qkv.num_rows &&
                    args.q_out.num_cols == int64_t{args.num_heads} * head_dim,
                "qkv of " + std::to_string(args.qkv.num_cols) + " columns, expected " +
                    std::to_string(num_cols));
  if (args.qkv.num_rows == 0) return;
  if (args.qkv.dtype == DType::kBF16) {
    launch_rope<__nv_bfloat16>(args, stream);
  } else {
    launch_rope<float>(args, stream);
  }
}

int64_t bytes_moved(const RopeAndCacheArgs& args) {
  const int64_t angles = int64_t{args.rope.rotary_dim} * 4 + 12;
  return args.qkv.num_rows * (args.qkv.num_cols * (dtype_bytes(args.qkv.dtype) + 2) + angles);
}

}  // namespace augur::cuda
