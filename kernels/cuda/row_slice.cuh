// One row of logits, shared out over the thread blocks that work on it together.
//
// On Hopper these are a cluster of kClusterBlocks blocks, elsewhere one block. A row is streamed
// once; what the second look at it needs lies in L2, or in shared memory where logits are changed.
// The blocks push what they found into each other's shared memory and all combine it in the same
// order.
// The order of every selection is that of a key: by falling logit, ties to the lower id. Keys of
// different tokens differ, so a selection is a single key, and NaN counts as -infinity.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/ptx.cuh"

namespace augur::cuda {

inline constexpr int kRowThreads = 512;
inline constexpr int kRowWarps = kRowThreads / 32;
inline constexpr int kClusterBlocks = 8;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// --- Keys
// -----------------------------------------------------------------------------------------

using Key = uint64_t;

inline constexpr float kMinusInfinity = -__builtin_huge_valf();
/// Below the key of every finite logit, above those of -infinity.
inline constexpr Key kAboveMinusInfinity = Key{0x00800000} << 32;
inline constexpr Key kAboveAll = ~Key{0};

__device__ __forceinline__ uint32_t ordered_bits(float logit) {
  if (!(logit > kMinusInfinity)) logit = kMinusInfinity;
  const uint32_t bits = __float_as_uint(logit == 0 ? 0.0f : logit);  // -0 equals 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ Key key_of(float logit, int id) {
  return static_cast<Key>(ordered_bits(logit)) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ float logit_of(Key key) {
  const auto bits = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(bits & 0x80000000u ? bits & 0x7FFFFFFFu : ~bits);
}
__device__ __forceinline__ int id_of(Key key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

/// The tokens at or above a key, told by their logits.
struct Cut {
  float logit;
  uint32_t id;
  __device__ explicit Cut(Key key) : logit(logit_of(key)), id(~static_cast<uint32_t>(key)) {}
  __device__ __forceinline__ bool keeps(float x, int x_id) const {
    return x > logit || (x == logit && static_cast<uint32_t>(x_id) <= id);
  }
};

// --- The blocks of a row
// --------------------------------------------------------------------------

template <int kBlocks>
__device__ __forceinline__ int block_rank() {
  return static_cast<int>(blockIdx.x % kBlocks);
}

/// The same place in the shared memory of block `rank` of the cluster.
template <int kBlocks, typename T>
__device__ __forceinline__ T* in_block(T* shared, int rank) {
#if __CUDA_ARCH__ >= 900
  if constexpr (kBlocks > 1) {
    uint64_t address = 0;
    asm volatile("mapa.u64 %0, %1, %2;"
                 : "=l"(address)
                 : "l"(reinterpret_cast<uint64_t>(shared)), "r"(rank));
    return reinterpret_cast<T*>(address);
  }
#endif
  return shared;
}

/// A barrier of all threads of the row's blocks, in two halves; writes before the first, also to
/// other blocks' shared memory, are seen after the second.
template <int kBlocks>
__device__ __forceinline__ void row_arrive() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kBlocks > 1) {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  }
#endif
}
template <int kBlocks>
__device__ __forceinline__ void row_wait() {
#if __CUDA_ARCH__ >= 900
  if constexpr (kBlocks > 1) {
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    return;
  }
#endif
  __syncthreads();
}
template <int kBlocks>
__device__ __forceinline__ void row_barrier() {
  row_arrive<kBlocks>();
  row_wait<kBlocks>();
}

/// Puts `part` (known to the first kBlocks threads) into parts[rank] of every block of the row.
/// After the barrier it ends with, parts[0, kBlocks) are the same in all of them.
template <int kBlocks, typename Part>
__device__ __forceinline__ void exchange(Part* parts, const Part& part) {
  if (threadIdx.x < kBlocks) {
    *in_block<kBlocks>(&parts[block_rank<kBlocks>()], static_cast<int>(threadIdx.x)) = part;
  }
  row_barrier<kBlocks>();
}

// --- Sums and maxima in a fixed order
// --------------------------------------------------------------

/// Every lane gets the result, the same bits.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}
template <typename T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value ? other : value;
  }
  return value;
}
/// The sum of the lanes up to and with this one.
template <typename T>
__device__ __forceinline__ T warp_prefix(T value) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const T before = __shfl_up_sync(kAllLanes, value, step);
    if (threadIdx.x % 32 >= step) value += before;
  }
  return value;
}
/// `per_warp`: kRowWarps values of shared memory, free again after the next barrier. Every thread
/// gets the result.
template <typename T>
__device__ __forceinline__ T block_sum(T value, T* per_warp) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(threadIdx.x % 32 < kRowWarps ? per_warp[threadIdx.x % 32] : T{0});
}
template <typename T>
__device__ __forceinline__ T block_max(T value, T* per_warp) {
  value = warp_max(value);
  if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_max(per_warp[threadIdx.x % kRowWarps]);
}

// --- Exponentials
// ---------------------------------------------------------------------------------

/// exp(t) for t <= 0, the same bits as kernels/cpu/row_math.h gives where it fuses multiply and
/// add: relative error 1.2e-7, exp(0) is 1, 0 below -87.3 and for NaN. See there for the maths.
__device__ __forceinline__ float exp_not_positive(float t) {
  const bool is_in_range = t >= -87.3f;
  t = is_in_range ? t : 0.0f;
  const float shifted = fmaf(t, 1.44269502f, 12582912.0f);
  const float n = __fsub_rn(shifted, 12582912.0f);
  const float r = fmaf(-n, -0.000212194442f, fmaf(-n, 0.693359375f, t));
  float q = fmaf(r, 0.00139261759f, 0.00836317334f);
  q = fmaf(q, r, 0.0416665561f);
  q = fmaf(q, r, 0.166665778f);
  q = fmaf(q, r, 0.5f);
  const float exp_r = __fadd_rn(fmaf(__fmul_rn(q, r), r, r), 1.0f);
  const float power = __uint_as_float((__float_as_uint(shifted) << 23) + 0x3f800000u);
  return is_in_range ? __fmul_rn(exp_r, power) : 0.0f;
}

// --- The slice of one block
// -----------------------------------------------------------------------

/// Logits [first_id, first_id + count) of a row. Four at a time from multiples of four; past the
/// end there are -infinities.
struct RowSlice {
  const float* logits = nullptr;
  int first_id = 0;
  int count = 0;
  bool has_whole_fours = false;  // 16-byte aligned and readable up to a multiple of four
  bool is_infinite = false;      // some are +infinity: they alone count, as zeros

  /// Without regard to is_infinite.
  __device__ __forceinline__ float4 raw_four(int i) const {
    if (has_whole_fours) return *reinterpret_cast<const float4*>(logits + i);
    return some_of_four(i);
  }
  /// The fours at start, start + step, ...; -infinities from `end` on. All loads are in flight
  /// before the first is waited for.
  template <int kCount>
  __device__ __forceinline__ void raw_fours(int start,
                                            int step,
                                            int end,
                                            float4 (&fours)[kCount]) const {
    constexpr float4 kNone = {kMinusInfinity, kMinusInfinity, kMinusInfinity, kMinusInfinity};
    if (has_whole_fours) {
#pragma unroll
      for (int a = 0; a < kCount; ++a) {
        const int i = start + a * step;
        fours[a] = i < end ? *reinterpret_cast<const float4*>(logits + i) : kNone;
      }
    } else {
#pragma unroll
      for (int a = 0; a < kCount; ++a) {
        const int i = start + a * step;
        fours[a] = i < end ? some_of_four(i) : kNone;
      }
    }
  }
  __device__ __forceinline__ float4 counted(float4 x) const {
    if (is_infinite) {
      const auto share = [](float value) { return value == -kMinusInfinity ? 0 : kMinusInfinity; };
      x = {share(x.x), share(x.y), share(x.z), share(x.w)};
    }
    return x;
  }
  __device__ __forceinline__ float4 four(int i) const {
    return counted(raw_four(i));
  }

 private:
  __device__ __forceinline__ float4 some_of_four(int i) const {
    const auto one = [&](int j) { return j < count ? logits[j] : kMinusInfinity; };
    return {one(i), one(i + 1), one(i + 2), one(i + 3)};
  }
};

__host__ __device__ inline int slice_capacity(int64_t vocab_size, int num_blocks) {
  return static_cast<int>((vocab_size + num_blocks * 4 - 1) / (num_blocks * 4) * 4);
}

/// The part of a row that falls to this block, ids rising with its rank, where it lies.
template <int kBlocks>
__device__ __forceinline__ RowSlice slice_in_place(const float* row, int vocab_size) {
  const int capacity = slice_capacity(vocab_size, kBlocks);
  RowSlice slice;
  slice.first_id = min(block_rank<kBlocks>() * capacity, vocab_size);
  slice.count = min(capacity, vocab_size - slice.first_id);
  slice.logits = row + slice.first_id;
  slice.has_whole_fours = vocab_size % 4 == 0 && reinterpret_cast<uint64_t>(row) % 16 == 0;
  return slice;
}

__device__ __forceinline__ float exp2_approx(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}
/// 2^((x - shift) * rate) for x <= shift; 0 for NaN, also of infinite differences.
__device__ __forceinline__ float exp2_of_difference(float x, float shift, float rate) {
  return exp2_approx(fmaxf((x - shift) * rate, -1000.0f));
}

/// What a thread makes of its fours in one pass.
struct Glance {
  Key best = 0;   // 0 without any
  float sum = 0;  // of 2^((x - best's logit) * rate); 0 when that is infinite
};

/// Of the fours at first, first + step, ... below `end`.
template <bool kWeighs>
__device__ __forceinline__ Glance
glance(const RowSlice& slice, int first, int end, int step, float rate) {
  constexpr int kAtOnce = 4;  // loads in flight
  if (first >= end) return {};
  float best = kMinusInfinity;
  int best_idx = first;
  float sum = 0;
  for (int start = first; start < end; start += kAtOnce * step) {
    float4 fours[kAtOnce];
    slice.raw_fours(start, step, end, fours);
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      const float4 x = fours[a];
      const float largest = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w));  // passes over NaN
      if (largest > best) {  // ids rise: the first of equals stays
        if (kWeighs) sum *= exp2_of_difference(best, largest, rate);
        best = largest;
        const int place = x.x == largest ? 0 : x.y == largest ? 1 : x.z == largest ? 2 : 3;
        best_idx = start + a * step + place;
      }
      if (kWeighs) {
        sum += (exp2_of_difference(x.x, best, rate) + exp2_of_difference(x.y, best, rate)) +
               (exp2_of_difference(x.z, best, rate) + exp2_of_difference(x.w, best, rate));
      }
    }
  }
  return {key_of(best, slice.first_id + best_idx), sum};
}

/// All fours of the slice over all threads of the block.
template <bool kWeighs>
__device__ __forceinline__ Glance glance_all(const RowSlice& slice, float rate) {
  return glance<kWeighs>(slice, static_cast<int>(threadIdx.x) * 4, slice.count, kRowThreads * 4,
                         rate);
}

/// Calls visit(four, index) for those of the fours that glance_all gave to the threads for which
/// `wants`, in whichever thread, of which some logit is not below `lowest`. All threads call it.
template <typename Visit>
__device__ __forceinline__ void visit_fours(const RowSlice& slice,
                                            bool wants,
                                            float lowest,
                                            const Visit& visit) {
  constexpr int kStep = kRowThreads * 4;
  constexpr int kAtOnce = 5;      // loads in flight
  constexpr int kFewThreads = 4;  // whose fours the lanes of their warp share
  const auto is_below = [&](const float4& x) {
    return x.x < lowest && x.y < lowest && x.z < lowest && x.w < lowest;
  };
  unsigned wanting = __ballot_sync(kAllLanes, wants);
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const bool is_shared = __popc(wanting) <= kFewThreads;
  if (!is_shared) wanting = wants ? 1u << lane : 0;
  while (wanting != 0) {
    const int owner = thread - lane + __ffs(static_cast<int>(wanting)) - 1;
    wanting &= wanting - 1;
    const int step = is_shared ? 32 * kStep : kStep;
    for (int start = owner * 4 + (is_shared ? lane * kStep : 0); start < slice.count;
         start += kAtOnce * step) {
      float4 fours[kAtOnce];
      slice.raw_fours(start, step, slice.count, fours);
      unsigned found = 0;
#pragma unroll
      for (int a = 0; a < kAtOnce; ++a) {
        if (start + a * step < slice.count && (slice.is_infinite || !is_below(fours[a]))) {
          found |= 1u << a;
        }
      }
      while (found != 0) {  // read again, now from a cache: one copy of what the visit does
        const int i = start + (__ffs(static_cast<int>(found)) - 1) * step;
        found &= found - 1;
        visit(slice.four(i), i);
      }
    }
  }
}

/// Asks for the slice to be brought into L2, for blocks that have to wait for something else.
__device__ __forceinline__ void prefetch_slice(const RowSlice& slice) {
  for (int i = static_cast<int>(threadIdx.x) * 32; i < slice.count; i += kRowThreads * 32) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(slice.logits + i));
  }
}

}  // namespace augur::cuda
