// The warps that copy: one the weights, ahead of the others; the rest the tokens' values.
#pragma once

#include "kernels/cuda/moe_stream.cuh"

namespace augur::cuda::moe_stream {

// The warp that copies weights: after looking up the choices together, one lane of it.
template <int kMatrices, int kN, int kRows>
struct WeightsProducer {
  static constexpr bool kIsDown = kMatrices == 1;
  using Layout = Smem<kMatrices, kN, kRows>;
  static constexpr int64_t kTileBytes = kTileRows * Bf16Format::kRowBytes;

  struct Item {
    int64_t idx;
    int tile;
    int first;
    int num_rows;
    int group;
    int slot;
    int choice;
  };

  const StreamArgs& args;
  const Layout& smem;
  RingCursor at;
  uint32_t call;  // the number of this one
  int64_t num_items = 0;
  int num_choices = 0;
  int num_k_tiles = 0;
  // Of the item being copied: what comes next of each matrix.
  Item item;
  const std::byte* from[kMatrices];
  int segment = 0;  // of kOneToken's down: the choice, and tiles left of it
  int num_left_of_segment = 0;

  // The experts of the one token: their slots and which choices they are, without those left out.
  __device__ void read_choices(int lane) {
    const int32_t expert = lane < args.top_k ? __ldcg(args.experts + lane) : -1;
    const unsigned chosen = __ballot_sync(~0u, expert >= 0);
    num_choices = __popc(chosen);
    if (expert >= 0) {
      smem.choices()[__popc(chosen & ((1u << lane) - 1))] =
          make_int2(__ldcg(args.slot_of_expert + expert), lane);
    }
    __syncwarp();
  }

  __device__ void find_item(Item& next) const {
    if (next.idx >= num_items) return;
    const auto idx = static_cast<int>(next.idx);
    if (args.rows == Rows::kAllTokens) {
      // Blocks beside each other read the same rows for their tiles: from memory once.
      const int num_tiles = static_cast<int>(num_items) / args.num_groups;
      next.tile = idx % num_tiles;
      next.group = idx / num_tiles;
    } else {
      next.tile = idx / args.num_groups;
      next.group = idx % args.num_groups;
    }
    if (args.rows == Rows::kPlan) {
      const int4 tile = __ldcg(reinterpret_cast<const int4*>(args.plan.tiles + next.tile));
      next.first = tile.y;
      next.num_rows = tile.z;
      next.slot = tile.w;
    } else if (args.rows == Rows::kOneToken) {
      next.first = next.tile;
      next.num_rows = 1;
      const int2 choice = num_choices > 0 ? smem.choices()[next.tile] : int2{};
      next.slot = choice.x;
      next.choice = choice.y;
    } else {
      next.first = next.tile * kN;
      next.num_rows = static_cast<int>(min(args.num_tokens - next.first, int64_t{kN}));
      next.slot = 0;
    }
  }

  __device__ const std::byte* strip(int matrix, int slot) const {
    const int row = item.group * kRows;
    return args.matrices[matrix] + slot * args.slot_bytes +
           int64_t{row / kTileRows} * args.num_k_tiles * kTileBytes +
           row % kTileRows * Bf16Format::kRowBytes;
  }
  __device__ void begin_item(const Item& next) {
    item = next;
    for (int m = 0; m < kMatrices; ++m) from[m] = strip(m, item.slot);
    segment = 0;
    num_left_of_segment = args.num_k_tiles;
  }

  // Starts the copies of the next k_tiles tiles and says what the stage will hold.
  __device__ void copy(int step, int num_steps) {
    constexpr int kTiles = Layout::kTiles;
    const int s = at.stage;
    const int k_tiles = min(num_k_tiles - step * kTiles, kTiles);
    const uint32_t full = smem.full(s);
    const uint32_t to = smem_address(smem.stage(s));
    barrier_arrive_expect(full, kMatrices * k_tiles * Layout::kPieceBytes);
    const bool is_segmented = kIsDown && args.rows == Rows::kOneToken;
    if (kRows == kTileRows && !is_segmented) {
#pragma unroll
      for (int m = 0; m < kMatrices; ++m) {
        bulk_copy(to + m * kUnitBytes, from[m], k_tiles * Layout::kPieceBytes, full, kEvictFirst);
        from[m] += k_tiles * kTileBytes;
      }
    } else {
#pragma unroll
      for (int i = 0; i < kTiles; ++i) {
        if (i >= k_tiles) break;
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
          bulk_copy(to + m * kUnitBytes + i * Layout::kPieceBytes, from[m], Layout::kPieceBytes,
                    full, kEvictFirst);
          from[m] += kTileBytes;
        }
        if (is_segmented && --num_left_of_segment == 0 && ++segment < num_choices) {
          from[0] = strip(0, smem.choices()[segment].x);
          num_left_of_segment = args.num_k_tiles;
        }
      }
    }
    const int flags =
        (step == 0 ? kIsFirstOfItem : 0) | (step + 1 == num_steps ? kIsLastOfItem : 0);
    post(k_tiles, flags);
  }
  __device__ void post(int k_tiles, int flags) {
    StageInfo& info = smem.info(at.stage);
    *reinterpret_cast<int4*>(&info) = make_int4(k_tiles, flags, item.num_rows, item.group);
    *reinterpret_cast<int4*>(&info.tile) =
        make_int4(item.tile, item.first, static_cast<int>(call), item.choice);
    barrier_arrive(smem.posted(at.stage));
    at.advance();
  }

  __device__ void run(int lane) {
    if (!kIsDown) {
      wait_for_previous_kernels();
      let_next_kernel_start();
      call = __ldcg(args.state.num_calls) + 1;
    }
    int64_t num_tiles = (args.num_tokens + kN - 1) / kN;
    num_k_tiles = args.num_k_tiles;
    if (args.rows == Rows::kPlan) {
      num_tiles = __ldcg(args.plan.num_tiles);
    } else if (args.rows == Rows::kOneToken) {
      read_choices(lane);
      num_tiles = kIsDown ? 1 : num_choices;
      if (kIsDown) num_k_tiles *= num_choices;
    }
    num_items = num_tiles * args.num_groups;
    if (lane != 0) return;
    const int num_steps = max((num_k_tiles + Layout::kTiles - 1) / Layout::kTiles, 1);
    Item next;
    next.idx = blockIdx.x;
    find_item(next);
    int32_t* const counter = kIsDown ? args.state.next_down : args.state.next_gate_up;
    while (next.idx < num_items) {
      begin_item(next);
      // The next item takes two reads, each about as long as a stage's copies.
      int num_looked_up = 0;
      const auto look_up = [&] {
        if (num_looked_up++ == 0) {
          next.idx = int64_t{gridDim.x} + atomicAdd(counter, 1);
        } else {
          find_item(next);
        }
      };
      for (int step = 0; step < num_steps; ++step) {
        barrier_wait(smem.empty(at.stage), at.parity ^ 1);
        copy(step, num_steps);
        if (num_looked_up < 2) look_up();
      }
      while (num_looked_up < 2) look_up();
    }
    barrier_wait(smem.empty(at.stage), at.parity ^ 1);
    barrier_arrive(smem.full(at.stage));
    item = {};
    post(0, kIsEnd);
    if (kIsDown) end_call();
  }

  // When the last block is done, nobody reads the counters any more until the next call.
  __device__ void end_call() {
    wait_for_previous_kernels();  // so that this kernel does not end before the first one
    __threadfence();
    if (atomicAdd(args.state.num_blocks_done, 1) != static_cast<int>(gridDim.x) - 1) return;
    *args.state.next_gate_up = 0;
    *args.state.next_down = 0;
    *args.state.num_blocks_done = 0;
    *args.state.num_calls = call;
  }
};

// A warp that copies tokens' values, 16 bytes a lane, behind the weights.
template <int kMatrices, int kN, int kRows>
struct TokensProducer {
  static constexpr bool kIsDown = kMatrices == 1;
  using Layout = Smem<kMatrices, kN, kRows>;
  static constexpr int kChunks = Layout::kTiles * 8;  // 16 bytes each, of a row in a stage
  // The warp copies so many rows, or 32 chunks of one, at a time.
  static constexpr int kRowsAtATime = kChunks < 32 ? 32 / kChunks : 1;
  static constexpr int kWarps = num_tokens_warps(kN);
  static constexpr int kRowsOfWarp = kN / kWarps;

  const StreamArgs& args;
  const Layout& smem;
  int first_row;  // of this warp's kRowsOfWarp
  int lane;
  RingCursor at;
  int step = 0;  // of the item
  bool is_ready = false;
  // Of row first_row + lane, if that is the warp's: where the result goes, and its weight.
  int out_row = 0;
  float scale = 1;
  // Where the rows this lane copies of start, in chunks.
  uint32_t starts[kRowsOfWarp / kRowsAtATime];

  // Whether the first kernel's items [first, first + count) are finished. What this lane finds is
  // what the warp may read.
  __device__ bool are_finished(int first, int count, uint32_t call) const {
    bool all = true;
    for (int i = lane; i < count; i += 32) {
      uint32_t value;
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n"
                   : "=r"(value)
                   : "l"(args.state.finished + first + i)
                   : "memory");
      all = all && value == call;
    }
    return __all_sync(~0u, all);
  }
  // Items of the first kernel make the columns of h in their order, tile by tile.
  __device__ void wait_for_h(const StageInfo& info) {
    const int num_per_tile = kTileCols / args.gate_up_rows;
    const int first = (info.tile * args.num_k_tiles + step * Layout::kTiles) * num_per_tile;
    while (!are_finished(first, info.num_k_tiles * num_per_tile, info.call)) {
    }
  }

  __device__ void begin_item(const StageInfo& info) {
    step = 0;
    uint32_t own_start = 0;
    const int row = first_row + lane;
    if (lane < kRowsOfWarp && row < info.num_rows) {
      int64_t x_row = 0;
      if (args.rows == Rows::kPlan) {
        out_row = __ldcg(args.plan.sorted + info.first + row);
        x_row = kIsDown ? out_row : out_row / args.top_k;
        if (!kIsDown) scale = __ldcg(args.weights + out_row);
      } else if (args.rows == Rows::kOneToken) {
        out_row = kIsDown ? 0 : info.first;
        if (!kIsDown) scale = __ldcg(args.weights + info.choice);
      } else {
        out_row = info.first + row;
        x_row = out_row;
      }
      own_start = static_cast<uint32_t>(x_row * args.x_stride / 8);
    }
#pragma unroll
    for (int i = 0; i < kRowsOfWarp / kRowsAtATime; ++i) {
      starts[i] = __shfl_sync(~0u, own_start, i * kRowsAtATime + lane / kChunks);
    }
    if (kIsDown && args.rows != Rows::kOneToken) {
      const int count = args.num_k_tiles * (kTileCols / args.gate_up_rows);
      is_ready = are_finished(info.tile * count, count, info.call);
    }
  }

  __device__ void copy(const StageInfo& info) {
    const uint32_t to = smem_address(smem.tokens(at.stage));
    const auto* const from = reinterpret_cast<const uint4*>(args.x) + int64_t{step} * kChunks;
    const int num_chunks = info.num_k_tiles * 8;
#pragma unroll
    for (int i = 0; i < kRowsOfWarp / kRowsAtATime; ++i) {
      if (first_row + i * kRowsAtATime >= info.num_rows) break;
      const int row = first_row + i * kRowsAtATime + lane / kChunks;
#pragma unroll
      for (int chunk = lane % kChunks; chunk < kChunks; chunk += 32) {
        if (row < info.num_rows && chunk < num_chunks) {
          copy_async_16(to + row * Layout::kTokenPitch + chunk * 16, from + starts[i] + chunk);
        }
      }
    }
    barrier_arrive_after_copies(smem.full(at.stage));
  }

  __device__ void run() {
    if (!kIsDown) wait_for_previous_kernels();
    while (true) {
      barrier_wait(smem.posted(at.stage), at.parity);
      const StageInfo info = smem.info(at.stage);
      if (info.flags & kIsFirstOfItem) begin_item(info);
      if (kIsDown && !is_ready) wait_for_h(info);
      copy(info);
      ++step;
      if (info.flags & kIsLastOfItem) {
        const int row = first_row + lane;
        if (lane < kRowsOfWarp && row < info.num_rows) {
          smem.out_rows(at.stage)[row] = out_row;
          smem.scales(at.stage)[row] = scale;
        }
      }
      __syncwarp();
      if (lane == 0) barrier_arrive(smem.full(at.stage));
      if (info.flags & kIsEnd) return;
      at.advance();
    }
  }
};

}  // namespace augur::cuda::moe_stream
