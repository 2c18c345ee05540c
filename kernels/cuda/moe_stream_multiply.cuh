// The warps that multiply, and write what comes out.
#pragma once

#include "kernels/cuda/moe_stream.cuh"

namespace augur::cuda::moe_stream {

__device__ __forceinline__ float silu(float x) {
  return x / (1.0f + __expf(-x));
}

__device__ __forceinline__ float read_as_float(const Tensor& tensor, int64_t row, int64_t col) {
  const int64_t i = row * tensor.row_stride + col;
  return tensor.dtype == DType::kBF16
             ? __bfloat162float(static_cast<const __nv_bfloat16*>(tensor.data)[i])
             : static_cast<const float*>(tensor.data)[i];
}

__device__ __forceinline__ void write_four(
    void* out, bool is_bf16, bool is_aligned, int64_t at, int num_cols, const float (&values)[4]) {
  if (is_aligned && num_cols >= 4) {
    if (is_bf16) {
      *reinterpret_cast<uint2*>(static_cast<__nv_bfloat16*>(out) + at) =
          make_uint2(pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]));
    } else {
      *reinterpret_cast<float4*>(static_cast<float*>(out) + at) =
          make_float4(values[0], values[1], values[2], values[3]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (i >= num_cols) break;
    if (is_bf16) {
      static_cast<__nv_bfloat16*>(out)[at + i] = __float2bfloat16(values[i]);
    } else {
      static_cast<float*>(out)[at + i] = values[i];
    }
  }
}

// A warp that multiplies: of every stage it takes 16 rows by 32 columns twice, of gate and up or of
// two tiles of down. Warps of the same rows have different columns, and their sums meet at the end.
template <int kMatrices, int kN, int kRows>
struct Consumer {
  static constexpr int kBlocks = kN / 8;
  static constexpr bool kIsDown = kMatrices == 1;
  static constexpr int kRowGroups = kRows / 16;
  using Layout = Smem<kMatrices, kN, kRows>;

  const StreamArgs& args;
  const Layout& smem;
  int warp;
  int g;  // the lane as the fragments of a product number it
  int t;
  float sums[kMatrices][kBlocks][4] = {};

  __device__ void multiply(int stage, int num_k_tiles, int num_blocks) {
    const int part = warp / kRowGroups;
    const int half = part % 2;
    const std::byte* const rows = smem.stage(stage) + part / 2 * Layout::kPieceBytes +
                                  warp % kRowGroups * 16 * Bf16Format::kRowBytes;
    const std::byte* const tokens =
        smem.tokens(stage) + g * Layout::kTokenPitch + (2 * t + half) * 16;
#pragma unroll
    for (int unit = 0; unit < (kIsDown ? 2 : 1); ++unit) {
      const int k_tile = part / 2 + unit * (Layout::kTiles / 2);
      if (k_tile >= num_k_tiles) break;
      uint32_t a[kMatrices][2][4];
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        Bf16Format::load(a[m], rows + (kIsDown ? unit : m) * kUnitBytes, g, t, half);
      }
      // Two blocks of tokens at a time, so that their products overlap.
      constexpr int kAtATime = kBlocks < 2 ? 1 : 2;
#pragma unroll
      for (int first = 0; first < kBlocks; first += kAtATime) {
        if (first >= num_blocks) break;
        uint4 b[kAtATime];
#pragma unroll
        for (int i = 0; i < kAtATime; ++i) {
          b[i] = *reinterpret_cast<const uint4*>(tokens + (first + i) * 8 * Layout::kTokenPitch +
                                                 k_tile * 128);
        }
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
          for (int i = 0; i < kAtATime; ++i) {
            mma_16x8x16(sums[m][first + i], a[m][0], b[i].x, b[i].y);
          }
        }
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
          for (int i = 0; i < kAtATime; ++i) {
            mma_16x8x16(sums[m][first + i], a[m][1], b[i].z, b[i].w);
          }
        }
      }
    }
  }

  // Adds up the warps' sums in the order of their columns and writes the item's result.
  __device__ void finish_item(int stage, int num_rows, int group) {
    constexpr int kPassCols = Layout::kPassCols;
    constexpr int kPitch = Layout::kSumPitch;
    constexpr int kQuads = kRows / 4;
    float* const partial = smem.sums();  // [part][matrix][token][row]
#pragma unroll
    for (int pass = 0; pass < kN / kPassCols; ++pass) {
      if (pass * kPassCols >= num_rows) break;
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
        for (int block = 0; block < kPassCols / 8; ++block) {
          const float(&d)[4] = sums[m][pass * kPassCols / 8 + block];
          float* const to =
              partial +
              ((warp / kRowGroups * kMatrices + m) * kPassCols + block * 8 + 2 * t) * kPitch +
              warp % kRowGroups * 16 + g;
          to[0] = d[0];
          to[kPitch] = d[1];
          to[8] = d[2];
          to[kPitch + 8] = d[3];
        }
      }
      named_barrier(1, kConsumers);
      const int num_quads = min(num_rows - pass * kPassCols, kPassCols) * kQuads;
      for (int i = static_cast<int>(threadIdx.x); i < num_quads; i += kConsumers) {
        const int token = i / kQuads;
        const int row = i % kQuads * 4;
        float totals[kMatrices][4] = {};
#pragma unroll
        for (int part = 0; part < Layout::kParts; ++part) {
#pragma unroll
          for (int m = 0; m < kMatrices; ++m) {
            const float4 value = *reinterpret_cast<const float4*>(
                partial + ((part * kMatrices + m) * kPassCols + token) * kPitch + row);
            totals[m][0] += value.x;
            totals[m][1] += value.y;
            totals[m][2] += value.z;
            totals[m][3] += value.w;
          }
        }
        write_result(totals, smem.out_rows(stage)[pass * kPassCols + token],
                     int64_t{group} * kRows + row, smem.scales(stage)[pass * kPassCols + token]);
      }
      named_barrier(1, kConsumers);
    }
#pragma unroll
    for (int m = 0; m < kMatrices; ++m) {
#pragma unroll
      for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][block][i] = 0;
      }
    }
  }

  // After the barrier that ends finish_item.
  __device__ void say_finished(const StageInfo& info) const {
    __threadfence();
    asm volatile("st.release.gpu.global.u32 [%0], %1;\n" ::"l"(
                     args.state.finished + info.tile * args.num_groups + info.group),
                 "r"(info.call)
                 : "memory");
  }

  __device__ void write_result(const float (&totals)[kMatrices][4],
                               int64_t out_row,
                               int64_t col,
                               float scale) {
    float values[4];
    const auto num_cols = static_cast<int>(min(args.num_out_cols - col, int64_t{4}));
    if constexpr (kIsDown) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[i] = totals[0][i];
        if (args.shared.data != nullptr && i < num_cols) {
          values[i] += read_as_float(args.shared, out_row, col + i);
        }
      }
      write_four(args.out, args.is_out_bf16, args.is_out_aligned, out_row * args.out_stride + col,
                 num_cols, values);
    } else {
      // h is as wide as whole tiles, and zero where the matrices end earlier.
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[i] = i < num_cols ? scale * silu(totals[0][i]) * totals[kMatrices - 1][i] : 0.0f;
      }
      write_four(args.out, true, true, out_row * args.out_stride + col, 4, values);
    }
  }

  __device__ void run() {
    RingCursor at{args.num_stages};
    while (true) {
      barrier_wait(smem.full(at.stage), at.parity);
      const int4 what = *reinterpret_cast<const int4*>(&smem.info(at.stage));
      if (what.y & kIsEnd) return;
      multiply(at.stage, what.x, (what.z + 7) / 8);
      if (what.y & kIsLastOfItem) {
        finish_item(at.stage, what.z, what.w);
        if (!kIsDown && threadIdx.x == 0) say_finished(smem.info(at.stage));
      }
      // Every lane says that it has read: a warp's one arrival after __syncwarp would do, and be a
      // little faster, but racecheck follows each thread through the barriers.
      barrier_arrive(smem.empty(at.stage));
      at.advance();
    }
  }
};

}  // namespace augur::cuda::moe_stream
