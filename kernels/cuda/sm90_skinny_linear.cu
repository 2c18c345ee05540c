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

constexpr int kOutputs = 64;  // M of wgmma; a strip of fewer leaves the rest of it unused
constexpr int kDepth = 64;    // columns of a tile: one swizzled row of 128 bytes
constexpr int kTileRowBytes = kDepth * 2;
constexpr int kGroupThreads = 128;
constexpr int kMaxStages = 32;
constexpr int kAllGroups = 1;  // named barriers
constexpr int kFirstGroup = 2;
// Of shared memory: two blocks per multiprocessor, so that one kernel fetches while the one ahead
// ends.
constexpr int kBlockBytes = 112 << 10;
// Weights that a block still waits for when the next kernel may start: what memory brings in 1.2
// us.
constexpr int kLateBytes = 30 << 10;

struct SkinnyArgs {
  const float* bias;
  void* out;
  int64_t out_stride;
  int64_t num_outputs;
  int num_rows;
  int num_steps;  // stages that all columns take
  int strip_outputs;
  int num_splits;
  int stage_tiles;
  int num_stages;
  int num_late_stages;
  int num_strips;
  bool is_f32;
  bool is_folded;  // columns, see make_tensor_map
};

/// Warpgroups that multiply. They take steps in turn, each with stages of its own (a multiple of
/// num_groups in all: a barrier tells only two uses of a stage apart), since one alone needs longer
/// for a tile of weights (about 250 cycles, of which wgmma is a small part) than memory; with many
/// rows the products themselves count, and the room for partial sums.
__host__ __device__ constexpr int num_groups(int padded_rows) {
  return padded_rows <= 16 ? 4 : 2;
}
__host__ __device__ constexpr int num_threads(int padded_rows) {
  return num_groups(padded_rows) * kGroupThreads + 32;
}

__host__ __device__ constexpr int stage_bytes(int padded_rows, int strip_outputs, int stage_tiles) {
  return (strip_outputs + padded_rows) * stage_tiles * kTileRowBytes;
}
/// Floats between rows of x in partial sums of `num_outputs` outputs: four more, so that the eight
/// outputs and four row pairs that a warp writes lie in different banks.
__host__ __device__ constexpr int sums_pitch(int num_outputs) {
  return num_outputs + 4;
}
__host__ __device__ constexpr int sums_bytes(int num_rows, int num_outputs) {
  return num_rows * sums_pitch(num_outputs) * 4;
}
/// What follows the ring: the sums of all groups but one, then those to send to the other blocks of
/// the cluster, in the same place; then, from incoming_offset on, those that they send.
__host__ __device__ constexpr int outgoing_bytes(int num_rows, int strip_outputs, int num_splits) {
  return num_splits > 1 ? num_splits * sums_bytes(num_rows, strip_outputs / num_splits) : 0;
}
__host__ __device__ constexpr int incoming_offset(int num_rows,
                                                  int num_groups,
                                                  int strip_outputs,
                                                  int num_splits) {
  const int group_bytes = (num_groups - 1) * sums_bytes(num_rows, strip_outputs);
  const int sent_bytes = outgoing_bytes(num_rows, strip_outputs, num_splits);
  return group_bytes > sent_bytes ? group_bytes : sent_bytes;
}

__device__ __forceinline__ void copy_box(uint32_t smem,
                                         const CUtensorMap& map,
                                         int col,
                                         int row,
                                         int tile,
                                         uint32_t smem_barrier,
                                         uint64_t cache_hint) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3, %4}], [%5], %6;\n" ::"r"(smem),
      "l"(&map), "r"(col), "r"(row), "r"(tile), "r"(smem_barrier), "l"(cache_hint)
      : "memory");
}

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;\n" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}
/// Copies num_bytes to the shared memory of block `rank` of the cluster and counts them at its
/// barrier; `to` and `smem_barrier` are where they are in this block.
__device__ __forceinline__ void copy_to_block(
    uint32_t to, uint32_t rank, uint32_t from, uint32_t num_bytes, uint32_t smem_barrier) {
  asm volatile(
      "{\n.reg .b32 remote_to, remote_barrier;\n"
      "mapa.shared::cluster.u32 remote_to, %0, %1;\n"
      "mapa.shared::cluster.u32 remote_barrier, %4, %1;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
      "[remote_to], [%2], %3, [remote_barrier];\n}\n" ::"r"(to),
      "r"(rank), "r"(from), "r"(num_bytes), "r"(smem_barrier)
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
  __device__ void advance(int num_steps, int num_stages) {
    stage += num_steps;
    while (stage >= num_stages) {
      stage -= num_stages;
      parity ^= 1;
    }
  }
};

template <int kRows>
__global__ void __launch_bounds__(num_threads(kRows), 2)
    skinny_linear_kernel(const __grid_constant__ CUtensorMap weight_map,
                         const __grid_constant__ CUtensorMap x_map,
                         const __grid_constant__ SkinnyArgs args) {
  constexpr int kGroups = num_groups(kRows);
  constexpr int kConsumers = kGroups * kGroupThreads;
  constexpr int kXTileBytes = kRows * kTileRowBytes;
  extern __shared__ __align__(1024) uint8_t smem[];
  __shared__ uint64_t full_barriers[kMaxStages];
  __shared__ uint64_t empty_barriers[kMaxStages];
  __shared__ uint64_t exchange_barrier;
  const uint32_t ring = smem_address(smem);
  const uint32_t full = smem_address(full_barriers);
  const uint32_t empty = smem_address(empty_barriers);
  const int weight_tile_bytes = args.strip_outputs * kTileRowBytes;
  const int bytes_of_stage = stage_bytes(kRows, args.strip_outputs, args.stage_tiles);
  uint8_t* const after_ring = smem + args.num_stages * bytes_of_stage;

  const bool splits = args.num_splits > 1;
  if (threadIdx.x == kConsumers) {
    for (int i = 0; i < args.num_stages; ++i) {
      barrier_init(full + 8 * i, 1);
      barrier_init(empty + 8 * i, kGroupThreads / 32);
    }
    barrier_init(smem_address(&exchange_barrier), 1);
    barrier_init_fence();
  }
  __syncthreads();
  if (splits) cluster_arrive();  // before the first exchange every block runs

  const int rank = splits ? static_cast<int>(cluster_rank()) : 0;
  const int first_step = rank * args.num_steps / args.num_splits;
  const int end_step = (rank + 1) * args.num_steps / args.num_splits;
  const int num_own_steps = end_step - first_step;  // of each strip
  const int first_strip = static_cast<int>(blockIdx.x) / args.num_splits;
  const int strip_stride = static_cast<int>(gridDim.x) / args.num_splits;

  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x == kConsumers) {
      const auto fetch_weights = [&](int slot, int strip, int step) {
        const int tile = step * args.stage_tiles;
        barrier_arrive_expect(full + 8 * slot, bytes_of_stage);
        copy_box(ring + slot * bytes_of_stage, weight_map, args.is_folded ? 0 : tile * kDepth,
                 strip * args.strip_outputs, args.is_folded ? tile : 0, full + 8 * slot,
                 kEvictFirst);
      };
      const auto fetch_x = [&](int slot, int step) {
        const int tile = step * args.stage_tiles;
        copy_box(ring + slot * bytes_of_stage + args.stage_tiles * weight_tile_bytes, x_map,
                 args.is_folded ? 0 : tile * kDepth, 0, args.is_folded ? tile : 0, full + 8 * slot,
                 kEvictLast);
      };
      // Fetch weights, as far as the ring goes, before x is there.
      const int num_own_strips = ceil_div(args.num_strips - first_strip, strip_stride);
      const int num_fetches = num_own_strips * num_own_steps;
      const int num_early = min(num_fetches, args.num_stages);
      int strip = first_strip;
      int step = first_step;
      const auto advance = [&] {
        if (++step == end_step) {
          step = first_step;
          strip += strip_stride;
        }
      };
      for (int i = 0; i < num_early; ++i) {
        fetch_weights(i, strip, step);
        advance();
      }
      wait_for_previous_kernels();
      int x_step = first_step;
      for (int i = 0; i < num_early; ++i) {
        fetch_x(i, x_step);
        if (++x_step == end_step) x_step = first_step;
      }
      RingPlace place;
      for (int i = num_early; i < num_fetches; ++i) {
        barrier_wait(empty + 8 * place.stage, place.parity);
        fetch_weights(place.stage, strip, step);
        fetch_x(place.stage, step);
        advance();
        place.advance(1, args.num_stages);
      }
      // What the next kernel fetches ahead would delay what this one waits for: let it start once
      // only the last stages are missing, which takes about as long as it needs to start.
      const int awaited = num_fetches - 1 - args.num_late_stages;
      if (awaited >= 0) {
        barrier_wait(full + 8 * (awaited % args.num_stages),
                     static_cast<uint32_t>(awaited / args.num_stages) & 1);
      }
      let_next_kernel_start();
    }
    __syncwarp();
    if (splits) {
      cluster_wait();
      cluster_arrive();
      cluster_wait();
    }
    return;
  }

  // The warpgroups that multiply.
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  // Of the strip's outputs, and that + 8; of the rows of x, and that + 1.
  const int fragment_output = static_cast<int>(threadIdx.x) % kGroupThreads / 32 * 16 + lane / 4;
  const int fragment_row = 2 * (lane % 4);
  const auto output_of = [&](int i) { return fragment_output + i % 4 / 2 * 8; };
  const auto row_of = [&](int i) { return i / 4 * 8 + fragment_row + i % 2; };
  wait_for_previous_kernels();  // out may still be read
  RingPlace place;
  place.advance(group, args.num_stages);
  int step = group;   // counted over all strips
  int strip_end = 0;  // the same
  for (int strip = first_strip; strip < args.num_strips; strip += strip_stride) {
    float sums[kRows / 2];
#pragma unroll
    for (float& sum : sums) sum = 0;
    strip_end += num_own_steps;
    for (int tile = 0; step < strip_end;) {
      if (tile == 0) barrier_wait(full + 8 * place.stage, place.parity);
      const uint32_t stage = ring + place.stage * bytes_of_stage;
      const uint64_t weight = smem_descriptor(stage + tile * weight_tile_bytes);
      const uint64_t x =
          smem_descriptor(stage + args.stage_tiles * weight_tile_bytes + tile * kXTileBytes);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) {
        Wgmma<kRows>::smem_smem(sums, weight + 2 * k, x + 2 * k, true);
      }
      wgmma_commit();
      wgmma_wait<0>();  // the other groups keep the tensor cores busy
      if (++tile < args.stage_tiles) continue;
      if (lane == 0) barrier_arrive(empty + 8 * place.stage);
      tile = 0;
      step += kGroups;
      place.advance(kGroups, args.num_stages);
    }

    // The first group adds up the sums of all, in their order.
    const int pitch = sums_pitch(args.strip_outputs);
    float* const partial_sums = reinterpret_cast<float*>(after_ring);
    const int floats_of_group = args.num_rows * pitch;
    if (group > 0) {
#pragma unroll
      for (int i = 0; i < kRows / 2; ++i) {
        if (output_of(i) < args.strip_outputs && row_of(i) < args.num_rows) {
          partial_sums[(group - 1) * floats_of_group + row_of(i) * pitch + output_of(i)] = sums[i];
        }
      }
      named_barrier(kAllGroups, kConsumers);
      named_barrier(kAllGroups, kConsumers);  // they have been read
      continue;
    }
    named_barrier(kAllGroups, kConsumers);
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) {
      if (output_of(i) < args.strip_outputs && row_of(i) < args.num_rows) {
#pragma unroll
        for (int other = 0; other < kGroups - 1; ++other) {
          sums[i] += partial_sums[other * floats_of_group + row_of(i) * pitch + output_of(i)];
        }
      }
    }
    named_barrier(kAllGroups, kConsumers);
    const int64_t strip_output = int64_t{strip} * args.strip_outputs;
    if (!splits) {
#pragma unroll
      for (int i = 0; i < kRows / 2; ++i) {
        if (output_of(i) < args.strip_outputs) {
          store_output(args, row_of(i), strip_output + output_of(i), sums[i]);
        }
      }
      continue;
    }

    // Each block of the cluster adds up its share of the outputs, in the order of the blocks. What
    // to send lies where the partial sums were.
    const int share = args.strip_outputs / args.num_splits;
    const int share_pitch = sums_pitch(share);
    const int bytes_of_share = sums_bytes(args.num_rows, share);
    const int floats_of_share = bytes_of_share / 4;
    float* const outgoing = partial_sums;
    const float* const incoming =
        partial_sums +
        incoming_offset(args.num_rows, kGroups, args.strip_outputs, args.num_splits) / 4;
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) {
      if (output_of(i) < args.strip_outputs && row_of(i) < args.num_rows) {
        outgoing[output_of(i) / share * floats_of_share + row_of(i) * share_pitch +
                 output_of(i) % share] = sums[i];
      }
    }
    fence_async_shared();
    named_barrier(kFirstGroup, kGroupThreads);
    cluster_wait();
    const uint32_t barrier = smem_address(&exchange_barrier);
    if (threadIdx.x == 0) {
      barrier_arrive_expect(barrier, args.num_splits * bytes_of_share);
      for (int i = 0; i < args.num_splits; ++i) {
        copy_to_block(smem_address(incoming) + rank * bytes_of_share, i,
                      smem_address(outgoing) + i * bytes_of_share, bytes_of_share, barrier);
      }
    }
    barrier_wait(barrier, 0);
    for (int i = static_cast<int>(threadIdx.x); i < args.num_rows * share; i += kGroupThreads) {
      const int row = i / share;
      float sum = 0;
      for (int part = 0; part < args.num_splits; ++part) {
        sum += incoming[part * floats_of_share + row * share_pitch + i % share];
      }
      store_output(args, row, strip_output + rank * share + i % share, sum);
    }
  }
  if (splits) {
    if (group > 0) cluster_wait();
    cluster_arrive();
    cluster_wait();  // what this block has sent has been received
  }
}

int pad_rows(int64_t num_rows) {
  for (const int padded : {8, 16, 32}) {
    if (num_rows <= padded) return padded;
  }
  return 64;
}

int bytes_of_stage(const SkinnyConfig& config) {
  return stage_bytes(config.padded_rows, config.strip_outputs, config.stage_tiles);
}

int bytes_after_ring(const SkinnyConfig& config, int num_rows) {
  const int sums = incoming_offset(num_rows, num_groups(config.padded_rows), config.strip_outputs,
                                   config.num_splits) +
                   outgoing_bytes(num_rows, config.strip_outputs, config.num_splits);
  // wgmma reads 64 outputs where a strip has fewer.
  return std::max(sums, (kOutputs - config.strip_outputs) * kTileRowBytes);
}

template <int kRows>
void launch_skinny(const LinearArgs& args, const SkinnyConfig& config, cudaStream_t stream) {
  static const bool smem_allowed = [] {
    // The barriers take the rest, filled up so that the ring starts at a multiple of 1,024.
    allow_smem(skinny_linear_kernel<kRows>, device_traits().max_smem_bytes - 1024);
    return true;
  }();
  (void)smem_allowed;
  const SkinnyArgs skinny = {
      .bias = args.bias,
      .out = args.out.data,
      .out_stride = args.out.row_stride,
      .num_outputs = args.out.num_cols,
      .num_rows = static_cast<int>(args.x.num_rows),
      .num_steps =
          static_cast<int>(ceil_div<int64_t>(args.x.num_cols, config.stage_tiles * kDepth)),
      .strip_outputs = config.strip_outputs,
      .num_splits = config.num_splits,
      .stage_tiles = config.stage_tiles,
      .num_stages = config.num_stages,
      .num_late_stages = config.num_late_stages,
      .num_strips = static_cast<int>(ceil_div<int64_t>(args.out.num_cols, config.strip_outputs)),
      .is_f32 = args.out.dtype == DType::kF32,
      .is_folded = folds_columns(args.x.num_cols),
  };
  launch(skinny_linear_kernel<kRows>,
         {.grid = dim3(static_cast<unsigned>(config.num_blocks)),
          .block = dim3(num_threads(kRows)),
          .smem_bytes = config.num_stages * bytes_of_stage(config) +
                        bytes_after_ring(config, static_cast<int>(args.x.num_rows)),
          .cluster_size = config.num_splits},
         stream,
         make_tensor_map(args.weight.data, args.weight.num_rows, args.weight.num_cols,
                         args.weight.num_cols, config.strip_outputs, config.stage_tiles),
         make_tensor_map(args.x.data, args.x.num_rows, args.x.num_cols, args.x.row_stride, kRows,
                         config.stage_tiles),
         skinny);
}

}  // namespace

std::string SkinnyConfig::description() const {
  return std::to_string(padded_rows) + " rows, strips of " + std::to_string(strip_outputs) + ", " +
         std::to_string(num_splits) + " splits, " + std::to_string(num_stages) + " stages of " +
         std::to_string(stage_tiles) + " tiles, " + std::to_string(num_late_stages) + " late, " +
         std::to_string(num_blocks) + " blocks";
}

bool fits_skinny_linear(const LinearArgs& args) {
  return args.x.num_rows >= 1 && args.x.num_rows <= kMaxSkinnyRows && args.x.num_cols >= 1 &&
         args.x.num_cols % 8 == 0 && args.x.row_stride % 8 == 0 &&
         reinterpret_cast<uintptr_t>(args.x.data) % 16 == 0;
}

SkinnyConfig choose_skinny_config(int64_t num_rows,
                                  int64_t num_outputs,
                                  int64_t num_cols,
                                  int num_sms) {
  SkinnyConfig config;
  config.padded_rows = pad_rows(num_rows);
  // Every multiprocessor gets as many strips, and those are as even as groups of eight allow.
  const int64_t strips_per_block = ceil_div<int64_t>(num_outputs, int64_t{kOutputs} * num_sms);
  int64_t strip_outputs = 8 * ceil_div<int64_t>(num_outputs, 8 * num_sms * strips_per_block);
  // Every strip reads all of x for its columns, from L2: wider strips of fewer columns keep that
  // below the weights.
  const int64_t num_tiles = ceil_div<int64_t>(num_cols, kDepth);
  config.num_splits = 1;
  while (strip_outputs < num_rows && strip_outputs <= kOutputs / 2 && config.num_splits < 8 &&
         num_tiles >= 8 * config.num_splits) {
    strip_outputs *= 2;
    config.num_splits *= 2;
  }
  config.strip_outputs = static_cast<int>(strip_outputs);
  const int64_t num_strips = ceil_div<int64_t>(num_outputs, strip_outputs);
  config.num_blocks = config.num_splits > 1
                          ? static_cast<int>(num_strips) * config.num_splits
                          : static_cast<int>(ceil_div(num_strips, strips_per_block));
  config.stage_tiles =
      folds_columns(num_cols)
          ? static_cast<int>(std::min<int64_t>(kOutputs / strip_outputs, num_tiles))
          : 1;
  const int ring_bytes = kBlockBytes - bytes_after_ring(config, static_cast<int>(num_rows));
  const int groups = num_groups(config.padded_rows);
  config.num_stages = std::min(kMaxStages, ring_bytes / bytes_of_stage(config)) / groups * groups;
  config.num_late_stages =
      std::min(config.num_stages - 1,
               ceil_div(kLateBytes, config.strip_outputs * config.stage_tiles * kTileRowBytes));
  return config;
}

void sm90_skinny_linear(const LinearArgs& args, const SkinnyConfig& config, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_skinny_linear");
  check_linear(args);
  AUGUR_REQUIRE(fits_skinny_linear(args), config.description());
  if (args.out.num_cols == 0) return;
  AUGUR_REQUIRE(config.num_stages >= 1 && config.num_stages <= kMaxStages &&
                    config.num_stages % num_groups(config.padded_rows) == 0 &&
                    config.num_late_stages >= 0 && config.num_late_stages < config.num_stages &&
                    config.stage_tiles >= 1 &&
                    (config.stage_tiles == 1 || folds_columns(args.x.num_cols)) &&
                    args.x.num_rows <= config.padded_rows && config.strip_outputs >= 8 &&
                    config.strip_outputs <= kOutputs && config.strip_outputs % 8 == 0,
                config.description());
  AUGUR_REQUIRE(
      config.num_splits == 1 ||
          (config.strip_outputs % (4 * config.num_splits) == 0 &&
           config.num_blocks ==
               config.num_splits * ceil_div<int64_t>(args.out.num_cols, config.strip_outputs)),
      "a cluster computes one strip: " + config.description());
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
