#include "kernels/cuda/rope_cache.h"

#include <algorithm>
#include <string>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_access.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kWarpLanes = 32;
constexpr int kWarps = 8;
constexpr int kMaxHeadDim = 256;

// kWidth consecutive values; four are 16-byte aligned as floats, 8-byte aligned as bf16.
template <int kWidth>
__device__ __forceinline__ void load_values(const float* from, float (&values)[kWidth]) {
  if constexpr (kWidth == 4) {
    const float4 raw = *reinterpret_cast<const float4*>(from);
    values[0] = raw.x, values[1] = raw.y, values[2] = raw.z, values[3] = raw.w;
  } else {
    values[0] = *from;
  }
}
template <int kWidth>
__device__ __forceinline__ void load_values(const __nv_bfloat16* from, float (&values)[kWidth]) {
  if constexpr (kWidth == 4) {
    const uint2 raw = *reinterpret_cast<const uint2*>(from);
    values[0] = __uint_as_float(raw.x << 16), values[1] = __uint_as_float(raw.x & 0xFFFF0000u);
    values[2] = __uint_as_float(raw.y << 16), values[3] = __uint_as_float(raw.y & 0xFFFF0000u);
  } else {
    values[0] = __bfloat162float(*from);
  }
}
template <int kWidth>
__device__ __forceinline__ void store_values(void* to, const float (&values)[kWidth]) {
  if constexpr (kWidth == 4) {
    *static_cast<uint2*>(to) =
        make_uint2(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]));
  } else {
    *static_cast<__nv_bfloat16*>(to) = __float2bfloat16(values[0]);
  }
}

// A block per token (and share of its heads), a warp per head. Chunk c of a lane is the kWidth
// columns from (32 c + lane) * kWidth on; kWidth is 4, or 1 where sizes are not multiples of 4.
template <typename In, int kWidth, int kChunks>
__global__ void __launch_bounds__(kWarps* kWarpLanes) rope_and_cache_kernel(RopeAndCacheArgs args) {
  __shared__ __align__(16) float turning[kWarps][kChunks * kWarpLanes * kWidth];
  const int warp = threadIdx.x / kWarpLanes;
  const int lane = threadIdx.x % kWarpLanes;
  const int head_dim = args.cache.head_dim;
  const int num_kv_heads = args.cache.num_kv_heads;
  const int half = args.rope.rotary_dim / 2;
  const auto col_of = [&](int chunk) { return (chunk * kWarpLanes + lane) * kWidth; };
  let_next_kernel_start();
  wait_for_previous_kernels();

  // Read what the heads of the token share.
  const int64_t token = blockIdx.x;
  const int64_t position = args.positions[token];
  const int64_t slot = args.kv_slots[token];
  float cos[kChunks][kWidth];
  float sin[kChunks][kWidth];  // negative for the first of a pair
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const int col = col_of(c) + i;
      if (col >= args.rope.rotary_dim) {
        cos[c][i] = 1;
        sin[c][i] = 0;
        continue;
      }
      const bool is_first = args.rope.is_interleaved ? col % 2 == 0 : col < half;
      const int angle = args.rope.is_interleaved ? col / 2 : (is_first ? col : col - half);
      const float s = args.rope.sin[position * half + angle];
      cos[c][i] = args.rope.cos[position * half + angle];
      sin[c][i] = is_first ? -s : s;
    }
  }

  const int num_heads = args.num_heads + 2 * num_kv_heads;
  for (int head = blockIdx.y * kWarps + warp; head < num_heads; head += gridDim.y * kWarps) {
    const In* const from = row_of<const In>(args.qkv, token) + int64_t{head} * head_dim;
    float x[kChunks][kWidth];
    float sum_of_squares = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < kWidth; ++i) x[c][i] = 0;
      if (col_of(c) < head_dim) load_values<kWidth>(from + col_of(c), x[c]);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum_of_squares += x[c][i] * x[c][i];
    }

    const bool is_query = head < args.num_heads;
    const bool is_value = head >= args.num_heads + num_kv_heads;
    const float* const weight = is_query ? args.q_norm : args.k_norm;
    if (!is_value && weight != nullptr) {
      const float scale =
          1.0f / sqrtf(warp_sum(sum_of_squares) / static_cast<float>(head_dim) + args.norm_eps);
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (col_of(c) >= head_dim) continue;
        float w[kWidth];
        load_values<kWidth>(weight + col_of(c), w);
#pragma unroll
        for (int i = 0; i < kWidth; ++i) x[c][i] *= scale * w[i];
      }
    }

    if (!is_value && half > 0) {
      // The other of a pair may be anywhere in the warp: pass all through shared memory.
      __syncwarp();
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) turning[warp][col_of(c) + i] = x[c][i];
      }
      __syncwarp();
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          const int col = col_of(c) + i;
          if (col >= args.rope.rotary_dim) continue;
          const int other =
              args.rope.is_interleaved ? col ^ 1 : (col < half ? col + half : col - half);
          x[c][i] = x[c][i] * cos[c][i] + turning[warp][other] * sin[c][i];
        }
      }
    }

    if (is_query) {
      __nv_bfloat16* const to = row_of<__nv_bfloat16>(args.q_out, token) + int64_t{head} * head_dim;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (col_of(c) < head_dim) store_values<kWidth>(to + col_of(c), x[c]);
      }
    } else if (slot >= 0) {
      const int block_size = args.cache.block_size;
      const int offset = static_cast<int>(slot % block_size);
      const int64_t block_bytes = kv_block_bytes(block_size, num_kv_heads, head_dim);
      // Values follow the keys of all heads: one head counts after the other.
      std::byte* const to = args.cache.data + slot / block_size * block_bytes +
                            kv_head_offset(block_size, head_dim, head - args.num_heads);
      const int padded_dim = num_kv_groups(head_dim) * kKvGroupCols;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (col_of(c) < padded_dim) {
          store_values<kWidth>(to + kv_value_offset(block_size, offset, col_of(c)), x[c]);
        }
      }
    }
  }
}

template <typename In>
void launch_rope(const RopeAndCacheArgs& args, cudaStream_t stream) {
  const int head_dim = args.cache.head_dim;
  const int num_heads = args.num_heads + 2 * args.cache.num_kv_heads;
  const int64_t num_tokens = args.qkv.num_rows;
  // Few tokens: the heads of one go to several blocks, so that all are at work at once.
  const int64_t blocks_per_token = std::clamp<int64_t>(
      ceil_div<int64_t>(4 * device_traits().num_sms, num_tokens), 1, ceil_div(num_heads, kWarps));
  const Launch how = {
      .grid = dim3(static_cast<unsigned>(num_tokens), static_cast<unsigned>(blocks_per_token)),
      .block = dim3(kWarps * kWarpLanes)};
  const bool is_wide = head_dim % 4 == 0 && args.qkv.row_stride % 4 == 0 &&
                       args.q_out.row_stride % 4 == 0 && has_aligned_rows(args.qkv.data, 0) &&
                       has_aligned_rows(args.q_out.data, 0) && has_aligned_rows(args.q_norm, 0) &&
                       has_aligned_rows(args.k_norm, 0);
  if (!is_wide) {
    launch(rope_and_cache_kernel<In, 1, kMaxHeadDim / kWarpLanes>, how, stream, args);
  } else if (head_dim <= 128) {
    launch(rope_and_cache_kernel<In, 4, 1>, how, stream, args);
  } else {
    launch(rope_and_cache_kernel<In, 4, 2>, how, stream, args);
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
