#include "kernels/cuda/skinny_linear.h"

#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kOutputs = 16;          // of a block: M of mma
constexpr int kTileRows = 8;          // rows of x: N of mma
constexpr int kPieceCols = 32;        // columns that a warp loads at once: 16 bytes a thread
constexpr int kPieces = 8;            // on their way together, of two rows: 64 registers
constexpr int kPitch = kOutputs + 4;  // floats; keeps the writes of a warp in different banks

struct SkinnyArgs {
  const __nv_bfloat16* weight;
  const __nv_bfloat16* x;
  const float* bias;
  void* out;
  int64_t x_stride;
  int64_t out_stride;
  int64_t num_outputs;
  int num_cols;
  int num_rows;
  bool is_f32;
};

/// 16 bytes that will not be read again. Unlike load_streaming it keeps its place before
/// wait_for_previous_kernels: ptxas moves loads of what it is told never changes behind that.
__device__ __forceinline__ uint4 load_early(const void* from) {
  uint4 value;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from)
               : "memory");
  return value;
}

// A thread's 16 bytes hold columns 8t to 8t + 7 of the 32 (t = lane % 4), of a row of weights and
// of a row of x alike. Two mma take them: columns 8t to 8t + 3 stand for 2t, 2t + 1, 2t + 8 and
// 2t + 9 of the first one's sixteen, the others for those of the second. The order within a sum
// does not matter to mma, as long as both operands have the same.
template <int kTiles, int kWarps, int kBlocksPerSm>
__global__ void __launch_bounds__(kWarps * 32, kBlocksPerSm) skinny_linear_kernel(SkinnyArgs args) {
  __shared__ float partial_sums[kWarps][kTiles * kTileRows][kPitch];
  let_next_kernel_start();
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int group = lane / 4;
  const int64_t first_output = int64_t{blockIdx.x} * kOutputs;
  const int64_t output = first_output + group;
  const int first_col = warp * kPieces * kPieceCols + lane % 4 * 8;
  constexpr int kRoundCols = kWarps * kPieces * kPieceCols;

  uint4 upper[kPieces];  // of output
  uint4 lower[kPieces];  // of output + 8
  const auto load_weights = [&](int col) {
    const __nv_bfloat16* const from = args.weight + output * args.num_cols + col;
    const int64_t eight_rows = int64_t{8} * args.num_cols;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const bool has_col = col + i * kPieceCols < args.num_cols;
      upper[i] = has_col && output < args.num_outputs ? load_early(from + i * kPieceCols)
                                                      : uint4{0, 0, 0, 0};
      lower[i] = has_col && output + 8 < args.num_outputs
                     ? load_early(from + i * kPieceCols + eight_rows)
                     : uint4{0, 0, 0, 0};
    }
  };

  load_weights(first_col);
  wait_for_previous_kernels();
  float sums[kTiles][4] = {};
  for (int col = first_col; col - first_col < args.num_cols; col += kRoundCols) {
    if (col != first_col) load_weights(col);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      const int row = tile * kTileRows + group;
      const __nv_bfloat16* const x = args.x + row * args.x_stride + col;
      uint4 values[kPieces];
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const bool is_inside = row < args.num_rows && col + i * kPieceCols < args.num_cols;
        values[i] =
            is_inside ? *reinterpret_cast<const uint4*>(x + i * kPieceCols) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        const uint32_t first[4] = {upper[i].x, lower[i].x, upper[i].y, lower[i].y};
        const uint32_t second[4] = {upper[i].z, lower[i].z, upper[i].w, lower[i].w};
        mma_16x8x16(sums[tile], first, values[i].x, values[i].y);
        mma_16x8x16(sums[tile], second, values[i].z, values[i].w);
      }
    }
  }

  // Add up the warps' sums, in their order.
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = tile * kTileRows + lane % 4 * 2 + i % 2;
      partial_sums[warp][row][group + i / 2 * 8] = sums[tile][i];
    }
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x) / kOutputs;
  const int64_t own_output = first_output + threadIdx.x % kOutputs;
  if (row >= args.num_rows || own_output >= args.num_outputs) return;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += partial_sums[i][row][threadIdx.x % kOutputs];
  if (args.bias != nullptr) sum += args.bias[own_output];
  const int64_t index = row * args.out_stride + own_output;
  if (args.is_f32) {
    static_cast<float*>(args.out)[index] = sum;
  } else {
    static_cast<__nv_bfloat16*>(args.out)[index] = __float2bfloat16(sum);
  }
}

template <int kTiles, int kWarps, int kBlocksPerSm>
void launch_skinny(const SkinnyArgs& args, cudaStream_t stream) {
  static_assert(kWarps * 32 >= kTiles * kTileRows * kOutputs);
  launch(skinny_linear_kernel<kTiles, kWarps, kBlocksPerSm>,
         {.grid = dim3(static_cast<unsigned>(ceil_div<int64_t>(args.num_outputs, kOutputs))),
          .block = dim3(kWarps * 32)},
         stream, args);
}

}  // namespace

bool fits_skinny_linear(const LinearArgs& args) {
  return args.x.num_rows >= 1 && args.x.num_rows <= kMaxSkinnyRows && has_16_byte_rows(args);
}

void skinny_linear(const LinearArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("skinny_linear");
  check_linear(args);
  AUGUR_REQUIRE(fits_skinny_linear(args),
                std::to_string(args.x.num_rows) + " rows of " + std::to_string(args.x.num_cols));
  if (args.out.num_cols == 0) return;
  const SkinnyArgs skinny = {
      .weight = reinterpret_cast<const __nv_bfloat16*>(args.weight.data),
      .x = static_cast<const __nv_bfloat16*>(args.x.data),
      .bias = args.bias,
      .out = args.out.data,
      .x_stride = args.x.row_stride,
      .out_stride = args.out.row_stride,
      .num_outputs = args.out.num_cols,
      .num_cols = static_cast<int>(args.x.num_cols),
      .num_rows = static_cast<int>(args.x.num_rows),
      .is_f32 = args.out.dtype == DType::kF32,
  };
  // Where there is at most one block for a multiprocessor, it has all columns on their way at once:
  // sixteen warps then fill the registers.
  const bool is_wide = ceil_div<int64_t>(args.out.num_cols, kOutputs) <= device_traits().num_sms &&
                       args.x.num_cols > 8 * kPieces * kPieceCols;
  const bool has_one_tile = args.x.num_rows <= kTileRows;
  if (is_wide) {
    has_one_tile ? launch_skinny<1, 16, 1>(skinny, stream)
                 : launch_skinny<2, 16, 1>(skinny, stream);
  } else {
    has_one_tile ? launch_skinny<1, 8, 2>(skinny, stream) : launch_skinny<2, 8, 2>(skinny, stream);
  }
}

}  // namespace augur::cuda
