// The kernel of decode_attention, for both ways of copying.
//
// A thread block is four warps that share its items (decode_attention_plan.cuh) but not their
// loads: each warp takes every fourth slice of a chunk (16 or 32 positions), has a ring of slices
// of its own in shared memory and keeps it full, on into the block's next items; no warp waits for
// another before the chunk's end. Query heads are the 16 rows of the products; scores, maximum and
// sum stay in registers (online softmax in powers of two), and the rounded probabilities are the
// next product's operand as they lie. At the chunk's end the warps' results are added up in their
// order; chunks of one unit are merged by the block that finishes last, in the chunks' order.
#pragma once

#include "kernels/cuda/decode_attention_plan.cuh"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda::decode {

/// Sizes fixed by the columns of a head (in groups of 64) and the rows that matter (8 or 16).
template <int kGroups, int kRows>
struct Shape {
  /// As many bytes for narrow heads as for those of 128.
  static constexpr int kSlice = kGroups == 1 ? 32 : 16;
  static constexpr int kPieces = kSlice / kKvPieceRows;
  static constexpr int kCols = kGroups * kKvGroupCols;
  static constexpr int kStageBytes = 2 * kSlice * kCols * 2;
  /// Eight floats more: the four rows a half warp writes at once lie in different banks.
  static constexpr int kSumStride = kCols + 8;
  static constexpr int64_t kSumBytes = int64_t{kWarps} * kRows * (kSumStride * 4 + 2 * 8);

  /// Shared memory of a thread block: bytes_per_stage for each stage of the rings, and these.
  static constexpr int64_t fixed_bytes(int num_seqs) {
    return kSumBytes + plan_bytes(num_seqs) + 16;
  }
  static constexpr int64_t bytes_per_stage() { return int64_t{kWarps} * (kStageBytes + 8); }
};

__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float max_of_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float sum_of_quad(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

template <int kMaxStages>
__device__ __forceinline__ void wait_for_oldest_copy(int num_stages) {
  if constexpr (kMaxStages > 1) {
    if (num_stages == kMaxStages) {
      copy_async_wait<kMaxStages - 1>();
    } else {
      wait_for_oldest_copy<kMaxStages - 1>(num_stages);
    }
  } else {
    copy_async_wait<0>();
  }
}

/// One warp's ring of slices, and where in the block's items its loads have come to.
template <bool kBulk, int kGroups, int kRows>
class SliceRing {
  using S = Shape<kGroups, kRows>;

 public:
  static constexpr int kMaxStages = 16;

  __device__ __forceinline__ SliceRing(const DecodeAttentionParams& p,
                                       const Plan& plan,
                                       const ItemCursor& first,
                                       uint32_t smem_ring,
                                       uint32_t smem_barriers,
                                       int warp,
                                       int lane)
      : p_(p),
        plan_(plan),
        item_(first),
        smem_ring_(smem_ring),
        smem_barriers_(smem_barriers),
        warp_(warp),
        lane_(lane) {
    if (!item_.is_done()) enter_item();
    for (int i = 1; i < p.num_stages; ++i) load_next();
  }

  /// Loads one slice more, into the stage freed last, and waits for the oldest; its address.
  __device__ __forceinline__ uint32_t next_slice() {
    load_next();
    const int stage = stage_;
    if constexpr (kBulk) {
      barrier_wait(smem_barriers_ + stage * 8, parity_);
      if (++stage_ == p_.num_stages) {
        stage_ = 0;
        parity_ ^= 1;
      }
    } else {
      wait_for_oldest_copy<kMaxStages>(p_.num_stages);
      __syncwarp();
      if (++stage_ == p_.num_stages) stage_ = 0;
    }
    return smem_ring_ + stage * S::kStageBytes;
  }

 private:
  __device__ __forceinline__ void enter_item() {
    const int context = plan_.context[item_.seq];
    const int begin = first_loaded(context, p_.window);
    pos_ = begin + item_.first_tile() * kDecodeTileRows + warp_ * S::kSlice;
    end_ = min(begin + item_.end_tile() * kDecodeTileRows, context);
    next_piece_ = 32;
  }

  // Each lane finds the address of the keys of one piece of the coming slices.
  __device__ __forceinline__ void find_pieces() {
    const int piece_pos =
        pos_ + lane_ / S::kPieces * (kWarps * S::kSlice) + lane_ % S::kPieces * kKvPieceRows;
    address_ = nullptr;
    if (piece_pos < end_) {
      const int64_t block =
          __ldcg(p_.block_table + item_.seq * p_.block_table_stride + piece_pos / p_.block_size);
      address_ = p_.cache + block * p_.block_bytes +
                 item_.unit / p_.units_per_kv_head * p_.head_bytes +
                 piece_pos % p_.block_size * (kKvGroupCols * 2);
    }
    next_piece_ = 0;
  }

  __device__ __forceinline__ const std::byte* piece_address(int piece) const {
    return reinterpret_cast<const std::byte*>(
        __shfl_sync(~0u, reinterpret_cast<unsigned long long>(address_), piece));
  }

  __device__ __forceinline__ void load_next() {
    while (!item_.is_done() && pos_ >= end_) {
      item_.next(p_, plan_);
      if (!item_.is_done()) enter_item();
    }
    if (!item_.is_done()) {
      if (next_piece_ == 32) find_pieces();
      __syncwarp();  // every lane has read the slice that lay here
      copy_slice();
      next_piece_ += S::kPieces;
      pos_ += kWarps * S::kSlice;
    }
    if constexpr (!kBulk) copy_async_commit();
    if (++load_stage_ == p_.num_stages) load_stage_ = 0;
  }

  __device__ __forceinline__ void copy_slice() {
    constexpr int kPieceBytes = kKvPieceRows * kKvGroupCols * 2;
    const uint32_t to = smem_ring_ + load_stage_ * S::kStageBytes;
    const int64_t group_bytes = int64_t{p_.block_size} * (kKvGroupCols * 2);
    if constexpr (kBulk) {
      const int piece = lane_ % S::kPieces;
      const int part = lane_ / S::kPieces;  // groups of the keys, then of the values
      const std::byte* from = piece_address(min(next_piece_ + piece, 31));
      const uint32_t barrier = smem_barriers_ + load_stage_ * 8;
      if (lane_ == 0) {
        const int num_pieces = min(S::kPieces, (end_ - pos_ + kKvPieceRows - 1) / kKvPieceRows);
        barrier_arrive_expect(barrier, num_pieces * 2 * kGroups * kPieceBytes);
      }
      __syncwarp();
      if (part < 2 * kGroups && from != nullptr) {
        from += part % kGroups * group_bytes + (part < kGroups ? 0 : p_.block_bytes / 2);
        bulk_copy(to + (part * S::kPieces + piece) * kPieceBytes, from, kPieceBytes, barrier,
                  kEvictFirst);
      }
    } else {
#pragma unroll
      for (int piece = 0; piece < S::kPieces; ++piece) {
        const std::byte* from = piece_address(next_piece_ + piece);
        if (from == nullptr) break;
        from += lane_ * 16;
#pragma unroll
        for (int part = 0; part < 2 * kGroups; ++part) {
          const std::byte* const part_from =
              from + part % kGroups * group_bytes + (part < kGroups ? 0 : p_.block_bytes / 2);
#pragma unroll
          for (int i = 0; i < kPieceBytes; i += 512) {
            copy_async_16(to + (part * S::kPieces + piece) * kPieceBytes + i + lane_ * 16,
                          part_from + i);
          }
        }
      }
    }
  }

  const DecodeAttentionParams& p_;
  const Plan& plan_;
  ItemCursor item_;
  const uint32_t smem_ring_;
  const uint32_t smem_barriers_;
  const int warp_;
  const int lane_;
  int pos_ = 0;  // of the next slice to load
  int end_ = 0;  // of the chunk
  const std::byte* address_ = nullptr;
  int next_piece_ = 32;  // lane that holds its address; 32: none does
  int load_stage_ = 0;
  int stage_ = 0;
  uint32_t parity_ = 0;
};

/// What a warp has of a chunk: rows lane / 4 and that + 8, columns of the product's fragments.
template <int kGroups, int kRows>
struct WarpState {
  static constexpr int kHalves = kRows / 8;
  float values[kGroups * 8][4];
  float maximum[2];
  float sum[2];  // over the columns of this lane alone

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (auto& tile : values) {
#pragma unroll
      for (float& value : tile) value = 0;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      maximum[half] = -INFINITY;
      sum[half] = 0;
    }
  }
};

template <int kGroups, int kRows>
__device__ __forceinline__ void load_queries(const DecodeAttentionParams& p,
                                             const ItemCursor& item,
                                             int num_rows,
                                             int lane,
                                             uint32_t (&q)[kGroups * 4][4]) {
  const int first_head =
      item.unit / p.units_per_kv_head * p.group + item.unit % p.units_per_kv_head * kMaxHeadRows;
  const __nv_bfloat16* const from = p.q + item.seq * p.q_stride + first_head * p.head_dim;
#pragma unroll
  for (int step = 0; step < kGroups * 4; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i % 2 * 8;
      const int col = step * 16 + lane % 4 * 2 + i / 2 * 8;
      q[step][i] = 0;
      if (i % 2 * 8 < kRows && row < num_rows && col < p.head_dim) {
        q[step][i] = __ldcg(reinterpret_cast<const unsigned*>(from + row * p.head_dim + col));
      }
    }
  }
}

/// Adds the slice at `smem` whose first position is `pos`.
template <int kGroups, int kRows>
__device__ __forceinline__ void attend(uint32_t smem,
                                       int pos,
                                       int visible_begin,
                                       int visible_end,
                                       float scale_log2,
                                       int lane,
                                       const uint32_t (&q)[kGroups * 4][4],
                                       WarpState<kGroups, kRows>& state) {
  using S = Shape<kGroups, kRows>;
  constexpr int kHalves = kRows / 8;
  constexpr int kTiles = S::kSlice / 8;
  constexpr int kChains = S::kPieces == 1 ? 2 : 1;  // enough independent products
  const uint32_t swizzle = lane % 8;

  // Scores.
  float s[kChains][kTiles][4] = {};
  const uint32_t keys = smem + (lane / 16 * 8 + lane % 8) * 128;
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
#pragma unroll
    for (int piece = 0; piece < S::kPieces; ++piece) {
      uint32_t k[4][4];
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        load_matrix_x4(k[step], keys + (group * S::kSlice + piece * 16) * 128 +
                                    (((step * 2 + lane / 8 % 2) ^ swizzle) * 16));
      }
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        auto& chain = s[step % kChains];
        mma_16x8x16(chain[piece * 2], q[group * 4 + step], k[step][0], k[step][1]);
        mma_16x8x16(chain[piece * 2 + 1], q[group * 4 + step], k[step][2], k[step][3]);
      }
    }
  }
  if constexpr (kChains == 2) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 2 * kHalves; ++i) s[0][tile][i] += s[1][tile][i];
    }
  }

  // Positions that the row does not see, at the ends: what lies there may be anything.
  if (pos < visible_begin || pos + S::kSlice > visible_end) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = pos + tile * 8 + lane % 4 * 2 + i % 2;
        if (at < visible_begin || at >= visible_end) s[0][tile][i] = -INFINITY;
      }
    }
    for (int i = lane; i < kGroups * S::kSlice * 8; i += 32) {
      const int at = pos + i / 8 % S::kSlice;
      if (at < visible_begin || at >= visible_end) {
        asm volatile(
            "st.shared.v4.b32 [%0], {%1, %1, %1, %1};\n" ::"r"(smem + S::kStageBytes / 2 + i * 16),
            "r"(0)
            : "memory");
      }
    }
#if __CUDA_ARCH__ >= 900
    fence_async_shared();  // before a bulk copy fills the stage again
#endif
    __syncwarp();
  }

  // Softmax so far.
  float largest[2];
  bool grows = false;
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    float x = fmaxf(s[0][0][half * 2], s[0][0][half * 2 + 1]);
#pragma unroll
    for (int tile = 1; tile < kTiles; ++tile) {
      x = fmaxf(x, fmaxf(s[0][tile][half * 2], s[0][tile][half * 2 + 1]));
    }
    largest[half] = fmaxf(state.maximum[half], max_of_quad(x) * scale_log2);
    grows |= largest[half] > state.maximum[half];
  }
  if (__any_sync(~0u, grows)) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const float factor = exp2_approx(state.maximum[half] - largest[half]);
      state.maximum[half] = largest[half];
      state.sum[half] *= factor;
#pragma unroll
      for (auto& tile : state.values) {
        tile[half * 2] *= factor;
        tile[half * 2 + 1] *= factor;
      }
    }
  }
  uint32_t weights[kTiles][2] = {};
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      const float low = exp2_approx(s[0][tile][half * 2] * scale_log2 - state.maximum[half]);
      const float high = exp2_approx(s[0][tile][half * 2 + 1] * scale_log2 - state.maximum[half]);
      state.sum[half] += low + high;
      weights[tile][half] = pack_bf16(low, high);
    }
  }

  // Values.
  const uint32_t values = smem + S::kStageBytes / 2 + lane % 16 * 128;
#pragma unroll
  for (int piece = 0; piece < S::kPieces; ++piece) {
    const uint32_t a[4] = {weights[piece * 2][0], weights[piece * 2][1], weights[piece * 2 + 1][0],
                           weights[piece * 2 + 1][1]};
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      uint32_t v[4][4];
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        load_matrix_x4_transposed(v[pair], values + (group * S::kSlice + piece * 16) * 128 +
                                               (((pair * 2 + lane / 16) ^ swizzle) * 16));
      }
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        mma_16x8x16(state.values[group * 8 + pair * 2], a, v[pair][0], v[pair][1]);
        mma_16x8x16(state.values[group * 8 + pair * 2 + 1], a, v[pair][2], v[pair][3]);
      }
    }
  }
}

__device__ __forceinline__ uint2 pack_bf16_x4(float4 x) {
  return {pack_bf16(x.x, x.y), pack_bf16(x.z, x.w)};
}

/// Writes a unit's row from the partial results of its chunks. One warp per row.
template <int kGroups>
__device__ __forceinline__ void merge_chunks(const DecodeAttentionParams& p,
                                             const ItemCursor& item,
                                             int64_t slot,
                                             int head,
                                             int row,
                                             int lane) {
  constexpr int kCols = kGroups * kKvGroupCols;
  // Two chunks a lane: max_chunks is at most 64.
  float2 sums[2];
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int chunk = lane + i * 32;
    sums[i] = chunk < item.num_chunks
                  ? __ldcg(p.partial_sums + (slot + chunk) * p.rows_per_unit + row)
                  : make_float2(-INFINITY, 0);
    largest = fmaxf(largest, sums[i].x);
  }
  const float sink = p.sinks != nullptr ? __ldcg(p.sinks + head) * 1.44269504f : -INFINITY;
  largest = fmaxf(largest, sink);
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, distance));
  }
  float factors[2];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    factors[i] = exp2_approx(sums[i].x - largest);
    sum += sums[i].y * factors[i];
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(~0u, sum, distance);
  }
  const float inverse = 1 / (sum + exp2_approx(sink - largest));
#pragma unroll
  for (int col = 0; col < kCols; col += 128) {
    const int own = col + lane * 4;
    float4 total = {};
    const float* from = p.partial_values + (slot * p.rows_per_unit + row) * kCols + own;
    const int64_t stride = int64_t{p.rows_per_unit} * kCols;
#pragma unroll 8
    for (int chunk = 0; chunk < item.num_chunks; ++chunk) {
      const float factor = __shfl_sync(~0u, chunk < 32 ? factors[0] : factors[1], chunk % 32);
      if (own < kCols) {
        const float4 part = __ldcg(reinterpret_cast<const float4*>(from + chunk * stride));
        total.x += part.x * factor;
        total.y += part.y * factor;
        total.z += part.z * factor;
        total.w += part.w * factor;
      }
    }
    if (own < p.head_dim) {
      const float4 result = {total.x * inverse, total.y * inverse, total.z * inverse,
                             total.w * inverse};
      *reinterpret_cast<uint2*>(p.out + item.seq * p.out_stride + head * p.head_dim + own) =
          pack_bf16_x4(result);
    }
  }
}

/// Adds the warps' results up and writes them: as the row itself, or as a chunk's part of it.
template <int kGroups, int kRows>
__device__ __forceinline__ void finish_item(const DecodeAttentionParams& p,
                                            const ItemCursor& item,
                                            int num_rows,
                                            WarpState<kGroups, kRows>& state,
                                            float* smem_values,
                                            float2* smem_sums,
                                            int* smem_is_last,
                                            int warp,
                                            int lane) {
  using S = Shape<kGroups, kRows>;
  constexpr int kHalves = kRows / 8;
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    const float sum = sum_of_quad(state.sum[half]);
    if (lane % 4 == 0) {
      smem_sums[warp * kRows + half * 8 + lane / 4] = make_float2(state.maximum[half], sum);
    }
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    const int row = half * 8 + lane / 4;
    float largest = smem_sums[row].x;
#pragma unroll
    for (int i = 1; i < kWarps; ++i) largest = fmaxf(largest, smem_sums[i * kRows + row].x);
    const float factor = exp2_approx(state.maximum[half] - largest);
#pragma unroll
    for (int tile = 0; tile < kGroups * 8; ++tile) {
      *reinterpret_cast<float2*>(smem_values + (warp * kRows + row) * S::kSumStride + tile * 8 +
                                 lane % 4 * 2) =
          make_float2(state.values[tile][half * 2] * factor,
                      state.values[tile][half * 2 + 1] * factor);
    }
  }
  __syncthreads();

  const int64_t unit = int64_t{item.seq} * p.units_per_seq + item.unit;
  const int64_t slot = unit * p.rule.max_chunks;
  const int first_head =
      item.unit / p.units_per_kv_head * p.group + item.unit % p.units_per_kv_head * kMaxHeadRows;
  for (int i = threadIdx.x; i < num_rows * (S::kCols / 4); i += kThreads) {
    const int row = i / (S::kCols / 4);
    const int col = i % (S::kCols / 4) * 4;
    float4 total = {};
    float largest = -INFINITY;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float4 part =
          *reinterpret_cast<const float4*>(smem_values + (w * kRows + row) * S::kSumStride + col);
      total.x += part.x;
      total.y += part.y;
      total.z += part.z;
      total.w += part.w;
      largest = fmaxf(largest, smem_sums[w * kRows + row].x);
    }
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float2 part = smem_sums[w * kRows + row];
      sum += part.y * exp2_approx(part.x - largest);
    }
    if (item.num_chunks > 1) {
      const int64_t to = (slot + item.chunk) * p.rows_per_unit + row;
      *reinterpret_cast<float4*>(p.partial_values + to * S::kCols + col) = total;
      if (col == 0) p.partial_sums[to] = make_float2(largest, sum);
    } else if (col < p.head_dim) {
      const int head = first_head + row;
      float inverse;
      if (p.sinks != nullptr) {
        // Relative to the larger of the two, as in merge_chunks.
        const float sink = __ldcg(p.sinks + head) * 1.44269504f;
        const float top = fmaxf(largest, sink);
        const float factor = exp2_approx(largest - top);
        inverse = factor / (sum * factor + exp2_approx(sink - top));
      } else {
        inverse = 1 / sum;
      }
      const float4 result = {total.x * inverse, total.y * inverse, total.z * inverse,
                             total.w * inverse};
      *reinterpret_cast<uint2*>(p.out + item.seq * p.out_stride + head * p.head_dim + col) =
          pack_bf16_x4(result);
    }
  }
  if (item.num_chunks == 1) {
    return;  // the next item's first barrier stands before its writes to smem_values
  }

  // The last block to come merges. Its arrival comes after its writes, and its reads after all.
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    const int before = atomicAdd(p.num_arrived + unit, 1);
    *smem_is_last = before == item.num_chunks - 1;
    if (before == item.num_chunks - 1) p.num_arrived[unit] = 0;  // for the next launch
    __threadfence();
  }
  __syncthreads();
  if (*smem_is_last == 0) return;
  for (int row = warp; row < num_rows; row += kWarps) {
    merge_chunks<kGroups>(p, item, slot, first_head + row, row, lane);
  }
}

template <bool kBulk, int kGroups, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    decode_attention_kernel(const __grid_constant__ DecodeAttentionParams p) {
  using S = Shape<kGroups, kRows>;
  extern __shared__ __align__(128) std::byte smem[];
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  const int64_t ring_bytes = int64_t{p.num_stages} * kWarps * S::kStageBytes;
  std::byte* const barriers = smem + ring_bytes;
  auto* const values = reinterpret_cast<float*>(barriers + p.num_stages * kWarps * 8 + 16);
  auto* const sums = reinterpret_cast<float2*>(values + kWarps * kRows * S::kSumStride);
  auto* const plan_smem = reinterpret_cast<int*>(sums + 2 * kWarps * kRows);
  auto* const is_last = reinterpret_cast<int*>(barriers + p.num_stages * kWarps * 8);

  let_next_kernel_start();
  if constexpr (kBulk) {
    if (threadIdx.x < p.num_stages * kWarps) {
      barrier_init(smem_address(barriers) + threadIdx.x * 8, 1);
      barrier_init_fence();
    }
  }
  wait_for_previous_kernels();
  const Plan plan = make_plan(p, plan_smem);

  ItemCursor item = first_item(p, plan);
  SliceRing<kBulk, kGroups, kRows> ring(
      p, plan, item, smem_address(smem) + warp * p.num_stages * S::kStageBytes,
      smem_address(barriers) + warp * p.num_stages * 8, warp, lane);

  // Rows that pad the step.
  for (int seq = blockIdx.x; seq < p.num_seqs; seq += gridDim.x) {
    if (plan.context[seq] > 0) continue;
    auto* const row = reinterpret_cast<uint4*>(p.out + seq * p.out_stride);
    for (int i = threadIdx.x; i < p.num_heads * p.head_dim / 8; i += kThreads) row[i] = uint4{};
  }

  // A warp may begin the next item's sums while another still reads this one's.
  for (int parity = 0; !item.is_done(); item.next(p, plan), parity ^= 1) {
    const int num_rows = min(kRows, p.group - item.unit % p.units_per_kv_head * kMaxHeadRows);
    uint32_t q[kGroups * 4][4];
    load_queries<kGroups, kRows>(p, item, num_rows, lane, q);
    WarpState<kGroups, kRows> state;
    state.clear();
    const int context = plan.context[item.seq];
    const int begin = first_loaded(context, p.window);
    const int end = min(begin + item.end_tile() * kDecodeTileRows, context);
    for (int pos = begin + item.first_tile() * kDecodeTileRows + warp * S::kSlice; pos < end;
         pos += kWarps * S::kSlice) {
      attend<kGroups, kRows>(ring.next_slice(), pos, first_visible(context, p.window), context,
                             p.scale_log2, lane, q, state);
    }
    finish_item<kGroups, kRows>(p, item, num_rows, state, values, sums + parity * kWarps * kRows,
                                is_last, warp, lane);
  }
}

}  // namespace augur::cuda::decode
