// What the prefill attention kernels share: who works on which query rows, which positions those
// see, and the online softmax of the fragments that tensor cores leave in registers.
#pragma once

#include <cstdint>

#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda {

/// Division by a number that does not change, as one multiplication. Exact while dividend times
/// divisor stays below 2^32.
struct Divisor {
  int size;
  uint32_t reciprocal;  // 2^32 / size, rounded up; unused for 1

  explicit Divisor(int divisor)
      : size(divisor),
        reciprocal(static_cast<uint32_t>(((int64_t{1} << 32) + divisor - 1) / divisor)) {}
  __device__ int divide(int dividend) const {
    return size == 1 ? dividend
                     : static_cast<int>(__umulhi(static_cast<uint32_t>(dividend), reciprocal));
  }
};

/// The arguments of the kernels.
struct PrefillKernelArgs {
  const __nv_bfloat16* q;
  int64_t q_stride;
  __nv_bfloat16* out;
  int64_t out_stride;
  const std::byte* cache;
  int block_size;
  int num_kv_heads;
  int head_dim;
  Divisor group;  // by the query heads of a KV head
  float scale_log2;
  int window;
  const float* sinks;
  AttentionBatch batch;
};

/// Checks the requirements of prefill_attention.
PrefillKernelArgs prefill_kernel_args(const PrefillAttentionArgs& args);

/// At least as many tiles of one KV head as the device finds, by the sizes alone; as many for one
/// sequence.
int64_t max_query_tiles(const PrefillKernelArgs& args, int tile_rows);

/// Row r of a tile is packed row p = first_row + r of its sequence: of its tokens number p /
/// group.size, of the KV head's query heads number p % group.size.
struct QueryTile {
  int first_token;  // of the sequence, in the step
  int num_tokens;   // of the sequence
  int context_len;
  int sequence;
  int first_row;
};

namespace prefill {

// Tiles are ordered by how many runs of this many positions they see.
inline constexpr int kLevelPositions = 128;
// The running maximum before anything was seen: finite, so that no difference is NaN.
inline constexpr float kNothingSeen = -1e30f;
inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr unsigned kAllLanes = 0xFFFFFFFF;

__device__ inline int ceil_divide(int a, int b) {
  return (a + b - 1) / b;
}

/// How many of a sequence's tiles see more than level - 1 runs of positions: its last ones.
template <int kTileRows>
__device__ int tiles_from_level(int level, int num_tokens, int context_len, int group_size) {
  const int num_tiles = ceil_divide(num_tokens * group_size, kTileRows);
  if (level <= 0) return num_tiles;
  // Tokens of the sequence that do not see as much.
  const int num_below = (level - 1) * kLevelPositions - (context_len - num_tokens);
  if (context_len == 0 || num_below >= num_tokens) return 0;
  return num_below <= 0 ? num_tiles : num_tiles - num_below * group_size / kTileRows;
}

/// The tile of the given rank, longest first; false when there are not as many. All lanes of a warp
/// call it and get the same.
template <int kTileRows>
__device__ bool find_query_tile(const AttentionBatch& batch,
                                int group_size,
                                int rank,
                                QueryTile& tile) {
  const auto tokens_of = [&](int s) { return batch.query_start[s + 1] - batch.query_start[s]; };
  int sequence = 0;
  int from_end = rank;  // the tile's place among its sequence's, counted from the last
  if (batch.num_seqs > 1) {
    const int lane = static_cast<int>(threadIdx.x % 32);
    const auto count = [&](int level) {
      int sum = 0;
      for (int s = lane; s < batch.num_seqs; s += 32) {
        sum += tiles_from_level<kTileRows>(level, tokens_of(s), batch.context_len[s], group_size);
      }
      return static_cast<int>(__reduce_add_sync(kAllLanes, sum));
    };
    if (rank >= count(0)) return false;
    int longest = 0;
    for (int s = lane; s < batch.num_seqs; s += 32) longest = max(longest, batch.context_len[s]);
    longest = __reduce_max_sync(kAllLanes, longest);
    // The highest level from which on there are more than `rank` tiles: the tile's own.
    int level = 0;
    int above = ceil_divide(longest, kLevelPositions) + 1;
    while (above - level > 1) {
      const int middle = (above + level) / 2;
      (count(middle) > rank ? level : above) = middle;
    }
    int rest = rank - count(above);
    for (int first = 0;; first += 32) {
      const int s = first + lane;
      int longer = 0;
      int here = 0;
      if (s < batch.num_seqs) {
        const int num_tokens = tokens_of(s);
        const int context_len = batch.context_len[s];
        longer = tiles_from_level<kTileRows>(above, num_tokens, context_len, group_size);
        here = tiles_from_level<kTileRows>(level, num_tokens, context_len, group_size) - longer;
      }
      int up_to_here = here;
#pragma unroll
      for (int distance = 1; distance < 32; distance *= 2) {
        const int before = __shfl_up_sync(kAllLanes, up_to_here, distance);
        if (lane >= distance) up_to_here += before;
      }
      const unsigned holds = __ballot_sync(kAllLanes, up_to_here > rest);
      if (holds != 0) {
        const int owner = __ffs(static_cast<int>(holds)) - 1;
        sequence = first + owner;
        from_end = __shfl_sync(kAllLanes, longer + rest - (up_to_here - here), owner);
        break;
      }
      rest -= __shfl_sync(kAllLanes, up_to_here, 31);
    }
  }
  const int num_tokens = tokens_of(sequence);
  const int num_tiles = ceil_divide(num_tokens * group_size, kTileRows);
  if (from_end >= num_tiles) return false;
  tile = {.first_token = batch.query_start[sequence],
          .num_tokens = num_tokens,
          .context_len = batch.context_len[sequence],
          .sequence = sequence,
          .first_row = (num_tiles - 1 - from_end) * kTileRows};
  return true;
}

/// Positions [begin, end) that some row of the tile sees, and those that all of its rows see.
struct SeenPositions {
  int begin;        // 0 or inside the window of the first row
  int window_full;  // from here on inside every row's window
  int causal_full;  // before here nothing is later than a row
  int end;
};

__device__ inline SeenPositions seen_positions(const QueryTile& tile,
                                               int tile_rows,
                                               const Divisor& group,
                                               int window) {
  if (tile.context_len == 0) return {0, 0, 0, 0};
  const int before = tile.context_len - tile.num_tokens;
  const int first = before + group.divide(tile.first_row);
  const int last = before + min(tile.num_tokens - 1, group.divide(tile.first_row + tile_rows - 1));
  return {.begin = window == 0 ? 0 : max(0, first - window + 1),
          .window_full = window == 0 ? 0 : max(0, last - window + 1),
          .causal_full = first + 1,
          .end = last + 1};
}

/// The position of a row of the tile; rows past the sequence's last see what that one sees.
__device__ inline int row_position(const QueryTile& tile, int row, const Divisor& group) {
  const int token = min(tile.num_tokens - 1, group.divide(tile.first_row + row));
  return tile.context_len - tile.num_tokens + token;
}

/// Where row `row` of the tile lies in q or out: 16-byte chunks from the start, or -1 past the
/// sequence.
__device__ inline int row_chunk(
    const PrefillKernelArgs& args, const QueryTile& tile, int kv_head, int row, int64_t stride) {
  const int packed = tile.first_row + row;
  const int token = args.group.divide(packed);
  if (token >= tile.num_tokens) return -1;
  const int head_in_group = packed - token * args.group.size;
  const int head = kv_head * args.group.size + head_in_group;
  return static_cast<int>(((tile.first_token + token) * stride + int64_t{head} * args.head_dim) /
                          8);
}

/// 2^x to within two units in the last place; 0 for -inf.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

/// The running softmax of the two rows a thread shares with three others: rows lane / 4 and that +
/// 8 of its warp's 16.
struct RowPair {
  float max[2] = {kNothingSeen, kNothingSeen};  // of unscaled logits, not always the latest
  float sum[2] = {0, 0};                        // of this thread's columns
};

/// Hides what a row does not see. `first` is the position of scores[0], scores[4 i] is 8 i later.
template <int kValues>
__device__ __forceinline__ void mask_scores(float (&scores)[kValues],
                                            int first,
                                            const int (&position)[2],
                                            int window) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int last = position[half] - first;
    const int begin = window == 0 ? INT32_MIN : last - window + 1;
#pragma unroll
    for (int i = 0; i < kValues / 4; ++i) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int column = 8 * i + j;
        if (column > last || column < begin) scores[4 * i + 2 * half + j] = -INFINITY;
      }
    }
  }
}

/// Turns scores into weights 2^(scale (score - max)), adds them up, and says what the sums and
/// outputs so far must be multiplied with. A maximum stays what it was until a score is 2^8 times
/// as heavy: that loses nothing in floating point, and most multiplications are then by 1 and can
/// be left out.
template <int kValues>
__device__ __forceinline__ void weigh_scores(float (&scores)[kValues],
                                             RowPair& rows,
                                             float scale_log2,
                                             float (&rescale)[2]) {
  constexpr float kSlackLog2 = 8;
  // Four chains a row, so that no instruction waits for the one before.
  constexpr int kChains = 4;
  float largest[2][kChains];
#pragma unroll
  for (int i = 0; i < kValues / 4; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float pair = fmaxf(scores[4 * i + 2 * half], scores[4 * i + 2 * half + 1]);
      float& chain = largest[half][i % kChains];
      chain = i < kChains ? pair : fmaxf(chain, pair);
    }
  }
  float offset[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float max =
        fmaxf(fmaxf(largest[half][0], largest[half][1]), fmaxf(largest[half][2], largest[half][3]));
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 1));
    max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, 2));
    const float rise = (max - rows.max[half]) * scale_log2;
    const bool is_raised = rise > kSlackLog2;
    rescale[half] = is_raised ? exp2_fast(-rise) : 1;
    rows.max[half] = is_raised ? max : rows.max[half];
    offset[half] = -rows.max[half] * scale_log2;
  }
  float sum[2][kChains] = {};
#pragma unroll
  for (int i = 0; i < kValues / 4; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float& score = scores[4 * i + 2 * half + j];
        score = exp2_fast(fmaf(score, scale_log2, offset[half]));
        sum[half][i % 2 * 2 + j] += score;
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    rows.sum[half] = fmaf(rows.sum[half], rescale[half],
                          (sum[half][0] + sum[half][1]) + (sum[half][2] + sum[half][3]));
  }
}

/// Whether some row of the warp has to be multiplied.
__device__ __forceinline__ bool any_rescale(const float (&rescale)[2]) {
  return __any_sync(kAllLanes, rescale[0] != 1 || rescale[1] != 1);
}

/// 1 / the rows' sums, the sink's share included; 0 for rows that saw nothing.
__device__ __forceinline__ void reciprocal_sums(const PrefillKernelArgs& args,
                                                const QueryTile& tile,
                                                int kv_head,
                                                const int (&row)[2],
                                                const RowPair& rows,
                                                float (&reciprocal)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = rows.sum[half];
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    sum += __shfl_xor_sync(kAllLanes, sum, 2);
    if (args.sinks != nullptr) {
      const int packed = tile.first_row + row[half];
      const int head_in_group = packed - args.group.divide(packed) * args.group.size;
      const int head = kv_head * args.group.size + head_in_group;
      sum += exp2_fast(args.sinks[head] * kLog2E - rows.max[half] * args.scale_log2);
    }
    reciprocal[half] = sum > 0 ? __fdividef(1, sum) : 0;
  }
}

/// Writes a warp's 16 rows of results: through `staging` (groups of 64 columns, group_bytes apart,
/// swizzled rows of 128 bytes, of which the warp's first is given), so that memory sees whole rows.
/// Threads hold values as tensor cores leave them. Only this warp uses its rows of the staging.
template <int kValues>
__device__ __forceinline__ void store_rows(const PrefillKernelArgs& args,
                                           const QueryTile& tile,
                                           int kv_head,
                                           int first_row,
                                           const float (&values)[kValues],
                                           const float (&reciprocal)[2],
                                           char* staging,
                                           int group_bytes) {
  const int lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
#pragma unroll
    for (int i = 0; i < kValues / 4; ++i) {
      const int chunk = (i % 8) ^ (row % 8);
      *reinterpret_cast<uint32_t*>(staging + i / 8 * group_bytes + row * 128 + chunk * 16 +
                                   lane % 4 * 4) =
          pack_bf16(values[4 * i + 2 * half] * reciprocal[half],
                    values[4 * i + 2 * half + 1] * reciprocal[half]);
    }
  }
  // Lane l knows where row l % 16 goes.
  const int to_chunk = row_chunk(args, tile, kv_head, first_row + lane % 16, args.out_stride);
  __syncwarp();
  // All loads, then all stores: one after the other each would wait for the one before.
  constexpr int kChunks = kValues / 4;  // of 8 columns
  constexpr int kStores = 16 * kChunks / 32;
  uint4 chunks[kStores];
#pragma unroll
  for (int i = 0; i < kStores; ++i) {
    const int row = (32 * i + lane) / kChunks;
    const int chunk = (32 * i + lane) % kChunks;
    chunks[i] = *reinterpret_cast<const uint4*>(staging + chunk / 8 * group_bytes + row * 128 +
                                                ((chunk % 8) ^ (row % 8)) * 16);
  }
#pragma unroll
  for (int i = 0; i < kStores; ++i) {
    const int chunk = (32 * i + lane) % kChunks;
    const int row_to = __shfl_sync(kAllLanes, to_chunk, (32 * i + lane) / kChunks);
    if (row_to >= 0 && chunk * 8 < args.head_dim) {
      reinterpret_cast<uint4*>(args.out)[int64_t{row_to} + chunk] = chunks[i];
    }
  }
}

/// Starts copying 32 query rows from `first_row` on into shared memory (groups of 64 columns,
/// group_bytes apart, swizzled rows of 128 bytes, of which the first is given), zeros past the
/// sequence and past the head. All lanes of a warp call it.
template <int kGroups>
__device__ __forceinline__ void copy_query_rows(const PrefillKernelArgs& args,
                                                const QueryTile& tile,
                                                int kv_head,
                                                int first_row,
                                                uint32_t smem,
                                                int group_bytes) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int from_chunk = row_chunk(args, tile, kv_head, first_row + lane, args.q_stride);
  const auto* const q = reinterpret_cast<const uint4*>(args.q);
  constexpr int kChunks = kGroups * 8;
#pragma unroll 8
  for (int first = 0; first < 32 * kChunks; first += 32) {
    const int row = (first + lane) / kChunks;
    const int chunk = (first + lane) % kChunks;
    const int row_from = __shfl_sync(kAllLanes, from_chunk, row);
    const bool is_valid = row_from >= 0 && chunk * 8 < args.head_dim;
    copy_async_16(smem + chunk / 8 * group_bytes + row * 128 + ((chunk % 8) ^ (row % 8)) * 16,
                  is_valid ? q + row_from + chunk : q, is_valid);
  }
}

}  // namespace prefill
}  // namespace augur::cuda
