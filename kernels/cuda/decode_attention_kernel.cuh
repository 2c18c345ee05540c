// The kernel of decode_attention, for both ways of copying.
//
// A thread block's warps share its items (decode_attention_plan.cuh) but not their loads: each warp
// takes every kWarps-th slice of a chunk (16 or 32 positions), has a ring of slices of its own in
// shared memory and keeps it full, on into the block's next items; no warp waits for another before
// the chunk's end. Query heads are the 16 rows of the products; scores, maximum and sum stay in
// registers (online softmax in powers of two), and the rounded probabilities are the next product's
// operand as they lie.
//
// At the chunk's end the warps' results are added up through shared memory, and the chunks of a
// unit through the workspace by the block that comes last; both in a fixed order. Behind a full
// ring every other access to memory takes microseconds. So the next item's queries are loaded
// before a chunk's end, and whether it was the last of its unit is asked then but looked at only
// after the next chunk.
#pragma once

#include "kernels/cuda/decode_attention_plan.cuh"
#include "kernels/cuda/kv_layout.h"
#include "kernels/cuda/ptx.cuh"

namespace augur::cuda::decode {

/// Sizes fixed by the columns of a head (in groups of 64) and the rows that matter (8 or 16).
template <bool kBulk, int kGroups, int kRows>
struct Shape {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = kWarps * 32;
  /// Two where they fit: one block's loads go on while the other ends a chunk.
  static constexpr int kBlocksPerSm = kBulk && kGroups <= 2 ? 2 : 1;
  /// As many bytes for narrow heads as for those of 128.
  static constexpr int kSlice = kGroups == 1 ? 32 : 16;
  static constexpr int kPieces = kSlice / kKvPieceRows;
  static constexpr int kCols = kGroups * kKvGroupCols;
  static constexpr int kStageBytes = 2 * kSlice * kCols * 2;
  /// The warps' results, eight rows at a time, and their maxima and sums.
  static constexpr int64_t kValueBytes = int64_t{kWarps} * 8 * kCols * 4;
  static constexpr int64_t kSumBytes = int64_t{kWarps} * kRows * 8;

  /// Shared memory of a thread block: bytes_per_stage for each stage of the rings, and these.
  static constexpr int64_t fixed_bytes(int num_seqs) {
    return kValueBytes + kSumBytes + plan_bytes(num_seqs, kWarps) + 16;
  }
  static constexpr int64_t bytes_per_stage() { return int64_t{kWarps} * (kStageBytes + 8); }
};

constexpr float kLog2E = 1.44269504f;

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

/// Waits until at most num_pending of the newest groups of copies are under way.
template <int kMost>
__device__ __forceinline__ void wait_for_copies(int num_pending) {
  if constexpr (kMost > 0) {
    if (num_pending < kMost) return wait_for_copies<kMost - 1>(num_pending);
  }
  copy_async_wait<kMost>();
}

/// One warp's ring of slices, and where in the block's items its loads have come to.
template <bool kBulk, int kGroups, int kRows>
class SliceRing {
  using S = Shape<kBulk, kGroups, kRows>;
  static constexpr int kWarps = S::kWarps;

 public:
  /// The loads of an SM's two blocks come to 128 KiB (192 of narrow heads, whose slices take half
  /// as long): more under way only made each take longer. Portable: of its one block, 128 KiB.
  static constexpr int kMaxStages = !kBulk ? 4 : kGroups == 2 ? 2 : 3;

  __device__ __forceinline__ SliceRing(const DecodeAttentionParams& p,
                                       const Plan& plan,
                                       uint32_t smem_ring,
                                       uint32_t smem_barriers,
                                       int warp,
                                       int lane)
      : p_(p),
        plan_(plan),
        smem_ring_(smem_ring),
        smem_barriers_(smem_barriers),
        warp_(warp),
        lane_(lane) {
    item_.start(p, plan);
    enter_item();
    fill();
  }

  /// Gives the slice before back, loads what there is room for, and waits for the next slice; its
  /// address. There is one: the caller is in the item it belongs to.
  __device__ __forceinline__ uint32_t next_slice() {
    if (num_given_ > 0) {
      --num_loaded_;
      if (++stage_ == p_.num_stages) {
        stage_ = 0;
        parity_ ^= 1;
      }
    }
    num_given_ = 1;
    fill();
    if constexpr (kBulk) {
      barrier_wait(smem_barriers_ + stage_ * 8, parity_);
    } else {
      wait_for_copies<kMaxStages - 1>(num_loaded_ - 1);
      __syncwarp();
    }
    return smem_ring_ + stage_ * S::kStageBytes;
  }

 private:
  __device__ __forceinline__ void enter_item() {
    pos_ = item_.pos + warp_ * S::kSlice;
    next_piece_ = 32;
    if (!item_.is_done && warp_ == 0 && lane_ == 0) item_.draw_next(p_, plan_);
  }

  __device__ __forceinline__ void fill() {
    while (num_loaded_ < p_.num_stages) {
      if (item_.is_done) return;
      if (pos_ >= item_.end) {
        if (!item_.try_next(p_, plan_)) return;
        enter_item();
        continue;
      }
      if (next_piece_ == 32) find_pieces();
      __syncwarp();  // every lane has read the slice that lay here
      copy_slice();
      next_piece_ += S::kPieces;
      pos_ += kWarps * S::kSlice;
      if constexpr (!kBulk) copy_async_commit();
      if (++load_stage_ == p_.num_stages) load_stage_ = 0;
      ++num_loaded_;
    }
  }

  // Each lane finds the address of the keys of one piece of the coming slices.
  __device__ __forceinline__ void find_pieces() {
    const int piece_pos =
        pos_ + lane_ / S::kPieces * (kWarps * S::kSlice) + lane_ % S::kPieces * kKvPieceRows;
    address_ = nullptr;
    if (piece_pos < item_.end) {
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
        const int num_pieces =
            min(S::kPieces, (item_.end - pos_ + kKvPieceRows - 1) / kKvPieceRows);
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
  const std::byte* address_ = nullptr;
  int next_piece_ = 32;  // lane that holds its address; 32: none does
  int load_stage_ = 0;
  int num_loaded_ = 0;  // and not given back
  int num_given_ = 0;
  int stage_ = 0;  // of the slice given
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

/// Query heads of the item's unit.
template <int kRows>
__device__ __forceinline__ int rows_of(const DecodeAttentionParams& p, const ItemCursor& item) {
  return min(kRows, p.group - item.unit % p.units_per_kv_head * kMaxHeadRows);
}

template <int kGroups, int kRows>
__device__ __forceinline__ void load_queries(const DecodeAttentionParams& p,
                                             const ItemCursor& item,
                                             int lane,
                                             uint32_t (&q)[kGroups * 4][4]) {
  const int first_head =
      item.unit / p.units_per_kv_head * p.group + item.unit % p.units_per_kv_head * kMaxHeadRows;
  const __nv_bfloat16* const from = p.q + item.seq * p.q_stride + first_head * p.head_dim;
  const int num_rows = rows_of<kRows>(p, item);
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
template <typename S, int kGroups, int kRows>
__device__ __forceinline__ void attend(uint32_t smem,
                                       int pos,
                                       int visible_begin,
                                       int visible_end,
                                       float scale_log2,
                                       int lane,
                                       const uint32_t (&q)[kGroups * 4][4],
                                       WarpState<kGroups, kRows>& state) {
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

/// A sum of parts that are relative to different maxima.
struct RunningSum {
  float maximum = -INFINITY;
  float sum = 0;
  float4 values = {};

  __device__ __forceinline__ void rescale(float new_maximum) {
    const float factor = exp2_approx(maximum - new_maximum);
    maximum = new_maximum;
    sum *= factor;
    values = {values.x * factor, values.y * factor, values.z * factor, values.w * factor};
  }
  /// Requires part_sum.x <= maximum > -infinity.
  __device__ __forceinline__ void add(float2 part_sum, float4 part) {
    const float factor = exp2_approx(part_sum.x - maximum);
    sum += part_sum.y * factor;
    values.x += part.x * factor;
    values.y += part.y * factor;
    values.z += part.z * factor;
    values.w += part.w * factor;
  }
  /// Adds `count` parts in batches whose loads are all under way at once.
  template <int kBatch, typename LoadSum, typename LoadValues>
  __device__ __forceinline__ void add_parts(int count,
                                            const LoadSum& load_sum,
                                            const LoadValues& load_values) {
    for (int first = 0; first < count; first += kBatch) {
      float2 sums[kBatch];
      float4 parts[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        sums[i] = make_float2(-INFINITY, 0);
        parts[i] = {};
        if (first + i < count) {
          sums[i] = load_sum(first + i);
          parts[i] = load_values(first + i);
        }
      }
      float largest = maximum;
#pragma unroll
      for (int i = 0; i < kBatch; ++i) largest = fmaxf(largest, sums[i].x);
      rescale(largest);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) add(sums[i], parts[i]);
    }
  }
};

/// Where a block's results go: four columns of a row, of a unit.
template <int kCols>
struct Output {
  const DecodeAttentionParams& p;
  const ItemCursor& item;

  __device__ __forceinline__ int64_t unit() const {
    return int64_t{item.seq} * p.units_per_seq + item.unit;
  }
  __device__ __forceinline__ int64_t partial_row(int chunk, int row) const {
    return (unit() * p.rule.max_chunks + chunk) * p.rows_per_unit + row;
  }
  __device__ __forceinline__ int first_head() const {
    return item.unit / p.units_per_kv_head * p.group +
           item.unit % p.units_per_kv_head * kMaxHeadRows;
  }
  __device__ __forceinline__ void write(int row, int col, RunningSum total) const {
    if (col >= p.head_dim) return;
    const int head = first_head() + row;
    if (p.sinks != nullptr) {
      const float sink = __ldcg(p.sinks + head) * kLog2E;
      total.rescale(fmaxf(total.maximum, sink));
      total.sum += exp2_approx(sink - total.maximum);
    }
    const float inverse = 1 / total.sum;
    const uint2 result = {pack_bf16(total.values.x * inverse, total.values.y * inverse),
                          pack_bf16(total.values.z * inverse, total.values.w * inverse)};
    *reinterpret_cast<uint2*>(p.out + item.seq * p.out_stride + head * p.head_dim + col) = result;
  }
};

/// Merges the chunks of a unit, all of which are done.
template <typename S>
__device__ __forceinline__ void merge_chunks(const DecodeAttentionParams& p,
                                             const ItemCursor& item,
                                             int num_rows) {
  constexpr int kBatch = 8;  // 16 took longer: more code, and registers, for as many bytes
  const Output<S::kCols> output = {p, item};
  for (int i = threadIdx.x; i < num_rows * (S::kCols / 4); i += S::kThreads) {
    const int row = i / (S::kCols / 4);
    const int col = i % (S::kCols / 4) * 4;
    const int64_t from = output.partial_row(0, row);
    RunningSum total;
    total.add_parts<kBatch>(
        item.num_chunks,
        [&](int chunk) { return __ldcg(p.partial_sums + from + chunk * p.rows_per_unit); },
        [&](int chunk) {
          return __ldcg(reinterpret_cast<const float4*>(
              p.partial_values + (from + chunk * p.rows_per_unit) * S::kCols + col));
        });
    output.write(row, col, total);
  }
}

/// Adds the warps' results up and writes them: as the row itself, or as a chunk's part of it.
template <typename S, int kGroups, int kRows>
__device__ __forceinline__ void write_item(const DecodeAttentionParams& p,
                                           const ItemCursor& item,
                                           int num_rows,
                                           WarpState<kGroups, kRows>& state,
                                           float* smem_values,
                                           float2* smem_sums,
                                           int warp,
                                           int lane) {
  const Output<S::kCols> output = {p, item};
#pragma unroll
  for (int half = 0; half < kRows / 8; ++half) {
    if (half > 0) __syncthreads();  // all have read the rows before
    const int row = lane / 4;
    const float sum = sum_of_quad(state.sum[half]);
    if (lane % 4 == 0) {
      smem_sums[(half * S::kWarps + warp) * 8 + row] = make_float2(state.maximum[half], sum);
    }
    // Groups of eight columns change places by row, so that the four rows that half a warp writes
    // at once lie in different banks.
    float* const to = smem_values + (warp * 8 + row) * S::kCols + lane % 4 * 2;
#pragma unroll
    for (int tile = 0; tile < kGroups * 8; ++tile) {
      *reinterpret_cast<float2*>(to + (tile ^ row % 4) * 8) =
          make_float2(state.values[tile][half * 2], state.values[tile][half * 2 + 1]);
    }
    __syncthreads();
    const int rows_here = min(8, num_rows - half * 8);
    for (int i = threadIdx.x; i < rows_here * (S::kCols / 4); i += S::kThreads) {
      const int out_row = i / (S::kCols / 4);
      const int col = i % (S::kCols / 4) * 4;
      RunningSum total;
      total.add_parts<S::kWarps>(
          S::kWarps, [&](int w) { return smem_sums[(half * S::kWarps + w) * 8 + out_row]; },
          [&](int w) {
            return *reinterpret_cast<const float4*>(smem_values + (w * 8 + out_row) * S::kCols +
                                                    (col ^ out_row % 4 * 8));
          });
      if (item.num_chunks == 1) {
        output.write(half * 8 + out_row, col, total);
      } else {
        const int64_t row_at = output.partial_row(item.chunk, half * 8 + out_row);
        *reinterpret_cast<float4*>(p.partial_values + row_at * S::kCols + col) = total.values;
        if (col == 0) p.partial_sums[row_at] = make_float2(total.maximum, total.sum);
      }
    }
  }
}

/// A unit that may be complete: this block has said that its chunk is done, and how many were
/// before.
struct Arrival {
  ItemCursor item;
  bool is_pending = false;
  int num_before = 0;  // known to the first thread alone

  /// After all threads' writes of the chunk. All threads call it.
  __device__ __forceinline__ void say(const DecodeAttentionParams& p, const ItemCursor& done) {
    item = done;
    is_pending = done.num_chunks > 1;
    if (!is_pending) return;
    __syncthreads();
    if (threadIdx.x == 0) {
      asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;\n"
                   : "=r"(num_before)
                   : "l"(p.num_arrived + int64_t{item.seq} * p.units_per_seq + item.unit)
                   : "memory");
    }
  }
  /// Merges the unit if its last chunk was this block's. All threads call it; a barrier.
  template <typename S, int kRows>
  __device__ __forceinline__ void settle(const DecodeAttentionParams& p, int* smem_is_last) {
    if (threadIdx.x == 0) {
      const bool is_last = is_pending && num_before == item.num_chunks - 1;
      *smem_is_last = is_last;
      // For the next launch.
      if (is_last) p.num_arrived[int64_t{item.seq} * p.units_per_seq + item.unit] = 0;
    }
    __syncthreads();
    if (*smem_is_last != 0) merge_chunks<S>(p, item, rows_of<kRows>(p, item));
  }
};

template <bool kBulk, int kGroups, int kRows>
__global__ void __launch_bounds__((Shape<kBulk, kGroups, kRows>::kThreads),
                                  (Shape<kBulk, kGroups, kRows>::kBlocksPerSm))
    decode_attention_kernel(const __grid_constant__ DecodeAttentionParams p) {
  using S = Shape<kBulk, kGroups, kRows>;
  extern __shared__ __align__(128) std::byte smem[];
  const int warp = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
  const int lane = threadIdx.x % 32;
  std::byte* const barriers = smem + int64_t{p.num_stages} * S::kWarps * S::kStageBytes;
  std::byte* const values_smem = barriers + p.num_stages * S::kWarps * 8;
  std::byte* const sums_smem = values_smem + S::kValueBytes;
  auto* const values = reinterpret_cast<float*>(values_smem);
  auto* const sums = reinterpret_cast<float2*>(sums_smem);
  auto* const is_last = reinterpret_cast<int*>(sums_smem + S::kSumBytes);
  auto* const plan_smem = is_last + 4;

  let_next_kernel_start();
  if constexpr (kBulk) {
    if (threadIdx.x < p.num_stages * S::kWarps) {
      barrier_init(smem_address(barriers) + threadIdx.x * 8, 1);
      barrier_init_fence();
    }
  }
  wait_for_previous_kernels();
  const Plan plan = make_plan<S::kThreads>(p, plan_smem);
  SliceRing<kBulk, kGroups, kRows> ring(
      p, plan, smem_address(smem) + warp * p.num_stages * S::kStageBytes,
      smem_address(barriers) + warp * p.num_stages * 8, warp, lane);

  // Rows that pad the step.
  for (int seq = blockIdx.x; seq < p.num_seqs; seq += gridDim.x) {
    if (plan.context[seq] > 0) continue;
    auto* const row = reinterpret_cast<uint4*>(p.out + seq * p.out_stride);
    for (int i = threadIdx.x; i < p.num_heads * p.head_dim / 8; i += S::kThreads) row[i] = uint4{};
  }

  Arrival arrival;
  uint32_t q[kGroups * 4][4];
  ItemCursor item;
  item.start(p, plan);
  if (!item.is_done) load_queries<kGroups, kRows>(p, item, lane, q);
  while (!item.is_done) {
    WarpState<kGroups, kRows> state;
    state.clear();
    const int context = plan.context[item.seq];
    for (int pos = item.pos + warp * S::kSlice; pos < item.end; pos += S::kWarps * S::kSlice) {
      attend<S, kGroups, kRows>(ring.next_slice(), pos, first_visible(context, p.window), context,
                                p.scale_log2, lane, q, state);
    }
    ItemCursor next = item;
    while (!next.try_next(p, plan)) {
      // The first warp has drawn it when it began to load this one.
    }
    if (!next.is_done) load_queries<kGroups, kRows>(p, next, lane, q);
    arrival.settle<S, kRows>(p, is_last);
    write_item<S, kGroups, kRows>(p, item, rows_of<kRows>(p, item), state, values, sums, warp,
                                  lane);
    arrival.say(p, item);
    item = next;
  }
  if (arrival.is_pending) arrival.settle<S, kRows>(p, is_last);
}

}  // namespace augur::cuda::decode
