#include <algorithm>
#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/sm90_skinny_linear.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/wgmma.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr int kStripRows = 64;  // M of wgmma
constexpr int kDepth = 64;      // columns of a tile: one swizzled row of 128 bytes
constexpr int kWeightBytes = kStripRows * kDepth * 2;
constexpr int kConsumers = 128;  // one warpgroup
constexpr int kThreads = kConsumers + 32;
constexpr int kMaxStages = 24;
// Two blocks per multiprocessor where there are strips for them, so that one fetches while the
// other ends; otherwise one with as much in flight.
constexpr int kRingBytes = 100 << 10;

struct SkinnyArgs {
  const float* bias;
  void* out;
  int64_t out_stride;
  int64_t num_outputs;
  int num_rows;
  int num_tiles;  // along the columns
  int num_stages;
  int num_strips;
  bool is_f32;
};

__host__ __device__ constexpr int stage_bytes(int padded_rows) {
  return kWeightBytes + padded_rows * kDepth * 2;
}

__device__ __forceinline__ void copy_tile(uint32_t smem,
                                          const CUtensorMap& map,
                                          int col,
                                          int row,
                                          uint32_t smem_barrier,
                                          uint64_t cache_hint) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3}], [%4], %5;\n" ::"r"(smem),
      "l"(&map), "r"(col), "r"(row), "r"(smem_barrier), "l"(cache_hint)
      : "memory");
}

__device__ __forceinline__ void store_output(const SkinnyArgs& args,
                                             int row,
                                             int64_t output,
                                             float sum) {
  if (row >= args.num_rows || output >= args.num_outputs) return;
  if (args.bias != nullptr) sum += args.bias[output];
  const int64_t index = row * args.out_stride + output;
  if (args.is_f32) {
    static_cast<float*>(args.out)[index] = sum;
  } else {
    static_cast<__nv_bfloat16*>(args.out)[index] = __float2bfloat16(sum);
  }
}

/// Where a block is in its ring of stages.
struct RingPlace {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void advance(int num_stages) {
    if (++stage == num_stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <int kRows>
__global__ void __launch_bounds__(kThreads)
    sm90_skinny_linear_kernel(const __grid_constant__ CUtensorMap weight_map,
                              const __grid_constant__ CUtensorMap x_map,
                              const __grid_constant__ SkinnyArgs args) {
  constexpr int kStageBytes = stage_bytes(kRows);
  extern __shared__ __align__(1024) uint8_t smem[];
  __shared__ uint64_t full_barriers[kMaxStages];
  __shared__ uint64_t empty_barriers[kMaxStages];
  const uint32_t ring = smem_address(smem);
  const uint32_t full = smem_address(full_barriers);
  const uint32_t empty = smem_address(empty_barriers);

  let_next_kernel_start();
  if (threadIdx.x == kConsumers) {
    for (int i = 0; i < args.num_stages; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, kConsumers / 32);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int first_strip = static_cast<int>(blockIdx.x);
  const int strip_stride = static_cast<int>(gridDim.x);

  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) {
      // Fetch weights, as far as the ring goes, before x is there.
      const int num_own_strips = ceil_div(args.num_strips - first_strip, strip_stride);
      const int num_fetches = num_own_strips * args.num_tiles;
      const int num_early = min(num_fetches, args.num_stages);
      int strip = first_strip;
      int tile = 0;
      const auto next_tile = [&] {
        if (++tile == args.num_tiles) {
          tile = 0;
          strip += strip_stride;
        }
      };
      for (int i = 0; i < num_early; ++i) {
        barrier_arrive_expect(full + 8 * i, kStageBytes);
        copy_tile(ring + i * kStageBytes, weight_map, tile * kDepth, strip * kStripRows,
                  full + 8 * i, kEvictFirst);
        next_tile();
      }
      wait_for_previous_kernels();
      int x_tile = 0;
      for (int i = 0; i < num_early; ++i) {
        copy_tile(ring + i * kStageBytes + kWeightBytes, x_map, x_tile * kDepth, 0, full + 8 * i,
                  kEvictLast);
        if (++x_tile == args.num_tiles) x_tile = 0;
      }
      RingPlace place;
      for (int i = num_early; i < num_fetches; ++i) {
        barrier_wait(empty + 8 * place.stage, place.parity);
        const uint32_t barrier = full + 8 * place.stage;
        const uint32_t stage = ring + place.stage * kStageBytes;
        barrier_arrive_expect(barrier, kStageBytes);
        copy_tile(stage, weight_map, tile * kDepth, strip * kStripRows, barrier, kEvictFirst);
        copy_tile(stage + kWeightBytes, x_map, tile * kDepth, 0, barrier, kEvictLast);
        next_tile();
        place.advance(args.num_stages);
      }
    }
    return;
  }

  // The warpgroup that multiplies.
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int fragment_row = 16 * warp + lane / 4;  // of the strip, and that + 8
  const int fragment_col = 2 * (lane % 4);        // row of x, and that + 1
  wait_for_previous_kernels();                    // out may still be read
  RingPlace place;
  for (int strip = first_strip; strip < args.num_strips; strip += strip_stride) {
    float sums[kRows / 2];
#pragma unroll
    for (float& sum : sums) sum = 0;
    for (int tile = 0; tile < args.num_tiles; ++tile) {
      const uint32_t stage = ring + place.stage * kStageBytes;
      barrier_wait(full + 8 * place.stage, place.parity);
      const uint64_t weight = smem_descriptor(stage);
      const uint64_t x = smem_descriptor(stage + kWeightBytes);
      wgmma_fence();
#pragma unroll
      for (int step = 0; step < kDepth / 16; ++step) {
        Wgmma<kRows>::smem_smem(sums, weight + 2 * step, x + 2 * step, true);
      }
      wgmma_commit();
      wgmma_wait<0>();
      if (lane == 0) barrier_arrive(empty + 8 * place.stage);
      place.advance(args.num_stages);
    }
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) {
      store_output(args, i / 4 * 8 + fragment_col + i % 2,
                   int64_t{strip} * kStripRows + fragment_row + i % 4 / 2 * 8, sums[i]);
    }
  }
}

int pad_rows(int64_t num_rows) {
  for (const int padded : {8, 16, 32}) {
    if (num_rows <= padded) return padded;
  }
  return 64;
}

template <int kRows>
void launch_skinny(const LinearArgs& args, const SkinnyConfig& config, cudaStream_t stream) {
  const int64_t smem_bytes = int64_t{config.num_stages} * stage_bytes(kRows);
  allow_smem(sm90_skinny_linear_kernel<kRows>, smem_bytes);
  const SkinnyArgs skinny = {
      .bias = args.bias,
      .out = args.out.data,
      .out_stride = args.out.row_stride,
      .num_outputs = args.out.num_cols,
      .num_rows = static_cast<int>(args.x.num_rows),
      .num_tiles = static_cast<int>(ceil_div<int64_t>(args.x.num_cols, kDepth)),
      .num_stages = config.num_stages,
      .num_strips = static_cast<int>(ceil_div<int64_t>(args.out.num_cols, kStripRows)),
      .is_f32 = args.out.dtype == DType::kF32,
  };
  launch(sm90_skinny_linear_kernel<kRows>,
         {.grid = dim3(static_cast<unsigned>(config.num_blocks)),
          .block = dim3(kThreads),
          .smem_bytes = smem_bytes},
         stream,
         make_tensor_map(args.weight.data, args.weight.num_rows, args.weight.num_cols,
                         args.weight.num_cols, kStripRows),
         make_tensor_map(args.x.data, args.x.num_rows, args.x.num_cols, args.x.row_stride, kRows),
         skinny);
}

}  // namespace

std::string SkinnyConfig::description() const {
  return std::to_string(padded_rows) + " rows, " + std::to_string(num_stages) + " stages, " +
         std::to_string(num_blocks) + " blocks";
}

bool fits_sm90_skinny_linear(const LinearArgs& args) {
  return args.x.num_rows >= 1 && args.x.num_rows <= kMaxSm90SkinnyRows && has_16_byte_rows(args);
}

SkinnyConfig choose_skinny_config(int64_t num_rows, int64_t num_outputs, int num_sms) {
  const int64_t num_strips = ceil_div<int64_t>(num_outputs, kStripRows);
  const bool has_two_blocks = num_strips > num_sms;
  SkinnyConfig config;
  config.padded_rows = pad_rows(num_rows);
  config.num_stages =
      std::min(kMaxStages, (has_two_blocks ? 1 : 2) * kRingBytes / stage_bytes(config.padded_rows));
  config.num_blocks =
      static_cast<int>(std::min<int64_t>(num_strips, (has_two_blocks ? 2 : 1) * num_sms));
  return config;
}

void sm90_skinny_linear(const LinearArgs& args, const SkinnyConfig& config, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_skinny_linear");
  check_linear(args);
  AUGUR_REQUIRE(fits_sm90_skinny_linear(args), config.description());
  if (args.out.num_cols == 0) return;
  AUGUR_REQUIRE(config.num_stages >= 1 && config.num_stages <= kMaxStages &&
                    config.num_blocks >= 1 && args.x.num_rows <= config.padded_rows,
                config.description());
  switch (config.padded_rows) {
    case 8:
      return launch_skinny<8>(args, config, stream);
    case 16:
      return launch_skinny<16>(args, config, stream);
    case 32:
      return launch_skinny<32>(args, config, stream);
    case 64:
      return launch_skinny<64>(args, config, stream);
    default:
      AUGUR_REQUIRE(false, config.description());
  }
}

}  // namespace augur::cuda
