#include <algorithm>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/prefill_tiles.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace augur::cuda {
namespace {

// One block per multiprocessor takes tiles until there are none. Two or three warpgroups
// (consumers) compute 64 query rows each, as many as one wgmma takes. The warps of another find the
// work, and bring queries, keys and values ahead of it.
//
// The consumers take turns at issuing their products, so that one's softmax runs under the others'
// products. Each also issues the scores of its next positions before the outputs of the present
// ones, so that both run under its softmax; that goes on from tile to tile without a break.
constexpr int kConsumerRows = 64;
constexpr int kStages = 2;         // of keys, and of values
constexpr int kWorkSlots = 6;      // found ahead
constexpr int kQueryBringers = 2;  // warps
constexpr int kQueryGroupBytes = kConsumerRows * 128;

template <int kGroups, int kConsumers>
struct Tiling {
  static constexpr int kTileRows = kConsumers * kConsumerRows;
  static constexpr int kThreads = (kConsumers + 1) * 128;
  // Together no more than the block starts with: 65,536 / kThreads a thread.
  static constexpr int kProducerRegisters = kConsumers == 3 ? 32 : 40;
  static constexpr int kConsumerRegisters = kConsumers == 3 ? 160 : 232;
  // Beyond 128 columns the outputs take the registers, and a second tile of queries has no room.
  // Three are that whose outputs are under way, that whose scores are, and the next.
  static constexpr int kPositions = kGroups <= 2 ? 128 : 64;
  static constexpr int kQueryBuffers = kGroups <= 2 ? 3 : 1;
  // With 128 columns there are just the registers to keep a tile's queries in; reading them from
  // shared memory for every product costs power, and power is what limits the clock.
  static constexpr bool kQueriesInRegisters = kGroups == 2;
  static constexpr int kConsumerQueryBytes = kGroups * kQueryGroupBytes;
  static constexpr int kQueryBytes = kConsumers * kConsumerQueryBytes;
  static constexpr int kKvGroupBytes = kPositions * 128;
  static constexpr int kKvBytes = kGroups * kKvGroupBytes;
};

// A tile and the steps of kPositions that it takes: from first_step down to last_step.
struct Work {
  QueryTile tile;
  prefill::SeenPositions seen;
  int kv_head;
  int first_step;
  int last_step;
  bool is_any;  // false: the block is done
};

template <int kGroups, int kConsumers>
struct Smem {
  using T = Tiling<kGroups, kConsumers>;
  // Queries, then the results on their way out.
  alignas(1024) char queries[T::kQueryBuffers][T::kQueryBytes];
  char keys[kStages][T::kKvBytes];
  char values[kStages][T::kKvBytes];
  Work work[kWorkSlots];
  uint64_t work_full[kWorkSlots];
  uint64_t work_empty[kWorkSlots];
  uint64_t queries_full[T::kQueryBuffers];
  uint64_t queries_empty[T::kQueryBuffers];
  uint64_t keys_full[kStages];
  uint64_t keys_empty[kStages];
  uint64_t values_full[kStages];
  uint64_t values_empty[kStages];
};

// A place in a ring of buffers and the parity of its barriers' phase.
template <int kBuffers>
struct RingPlace {
  int index = 0;
  uint32_t parity = 0;
  __device__ void advance() {
    if (++index == kBuffers) {
      index = 0;
      parity ^= 1;
    }
  }
  __device__ void wait_full(uint64_t* barriers) const {
    barrier_wait(smem_address(&barriers[index]), parity);
  }
  __device__ void wait_empty(uint64_t* barriers) const {
    barrier_wait(smem_address(&barriers[index]), parity ^ 1);
  }
};

// One lane's arrival for its warp, whose lanes have all come this far.
__device__ __forceinline__ void arrive_for_warp(uint64_t& barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(smem_address(&barrier));
}

// --- Finding work
// ---------------------------------------------------------------------------------

// Writes the zeros of a sequence that pads the step.
__device__ void store_zero_rows(const PrefillKernelArgs& args, const Work& work, int num_rows) {
  for (int row = static_cast<int>(threadIdx.x % 32); row < num_rows; row += 32) {
    const int to = prefill::row_chunk(args, work.tile, work.kv_head, row, args.out_stride);
    if (to < 0) continue;
    for (int chunk = 0; chunk < args.head_dim / 8; ++chunk) {
      reinterpret_cast<uint4*>(args.out)[int64_t{to} + chunk] = uint4{0, 0, 0, 0};
    }
  }
}

// One warp. The block's share is every gridDim.x-th of the list, in the next round from its other
// end, which evens out that lists begin with the longest.
template <int kGroups, int kConsumers>
__device__ __forceinline__ void find_work(const PrefillKernelArgs& args,
                                          Smem<kGroups, kConsumers>& smem) {
  using T = Tiling<kGroups, kConsumers>;
  const int num_blocks = static_cast<int>(gridDim.x);
  const int block = static_cast<int>(blockIdx.x);
  RingPlace<kWorkSlots> place;
  for (int round = 0;; ++round) {
    const int rank = round * num_blocks + (round % 2 == 0 ? block : num_blocks - 1 - block);
    Work work = {};
    work.kv_head = rank % args.num_kv_heads;
    work.is_any = prefill::find_query_tile<T::kTileRows>(args.batch, args.group.size,
                                                         rank / args.num_kv_heads, work.tile);
    if (work.is_any) {
      work.seen = prefill::seen_positions(work.tile, T::kTileRows, args.group, args.window);
      work.first_step = (work.seen.end - 1) / T::kPositions * T::kPositions;
      work.last_step = work.seen.begin / T::kPositions * T::kPositions;
      if (work.seen.end == 0) {
        store_zero_rows(args, work, T::kTileRows);
        continue;
      }
    }
    place.wait_empty(smem.work_empty);
    if (threadIdx.x % 32 == 0) smem.work[place.index] = work;
    arrive_for_warp(smem.work_full[place.index]);
    if (!work.is_any) return;
    place.advance();
  }
}

// --- Bringing keys and values
// ---------------------------------------------------------------------

// What one lane copies of a step's positions: those of one block of the cache, of one group of
// columns. A step spans at most nine blocks and has at most 32 of these.
struct Piece {
  const std::byte* from;
  int smem_offset;
  int num_bytes;  // 0: none
};

template <int kGroups, int kConsumers>
__device__ __forceinline__ Piece find_piece(const PrefillKernelArgs& args,
                                            const int32_t* block_table,
                                            int64_t block_bytes,
                                            int64_t head_offset,
                                            int first,
                                            int end) {
  using T = Tiling<kGroups, kConsumers>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int group = lane % kGroups;
  const int table_idx = first / args.block_size + lane / kGroups;
  const int block_first = table_idx * args.block_size;
  const int begin = max(first, block_first);
  const int stop = min(min(first + T::kPositions, end), block_first + args.block_size);
  if (begin >= stop) return {nullptr, 0, 0};
  const int64_t block = block_table[table_idx];
  return {args.cache + block * block_bytes + head_offset +
              (int64_t{group} * args.block_size + begin - block_first) * 128,
          group * T::kKvGroupBytes + (begin - first) * 128, (stop - begin) * 128};
}

// One warp. Keys go a step ahead of values: they are wanted, and their places free, that much
// sooner.
template <int kGroups, int kConsumers>
__device__ __forceinline__ void bring_keys_and_values(const PrefillKernelArgs& args,
                                                      Smem<kGroups, kConsumers>& smem) {
  using T = Tiling<kGroups, kConsumers>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t block_bytes = kv_block_bytes(args.block_size, args.num_kv_heads, args.head_dim);
  const auto bring = [&](const Piece& piece, int num_valid, char* to, uint64_t& full) {
    const uint32_t barrier = smem_address(&full);
    if (lane == 0) {
      barrier_arrive_expect(barrier, static_cast<uint32_t>(num_valid * kGroups * 128));
    }
    __syncwarp();
    if (piece.num_bytes > 0) {
      bulk_copy(smem_address(to) + piece.smem_offset, piece.from, piece.num_bytes, barrier,
                kEvictLast);
    }
  };
  RingPlace<kStages> key_place;
  RingPlace<kStages> value_place;
  Piece values = {};
  int num_valid_values = 0;  // positions of the step whose values are to come; 0: none
  const auto bring_values = [&] {
    if (num_valid_values == 0) return;
    value_place.wait_empty(smem.values_empty);
    char* const to = smem.values[value_place.index];
    // Values that nobody sees have weight 0; what is left there could be infinite.
    if (num_valid_values < T::kPositions) {
      for (int i = lane; i < kGroups * (T::kPositions - num_valid_values) * 8; i += 32) {
        *reinterpret_cast<uint4*>(to + i % kGroups * T::kKvGroupBytes + num_valid_values * 128 +
                                  i / kGroups * 16) = uint4{0, 0, 0, 0};
      }
      fence_async_shared();
      __syncwarp();
    }
    bring(values, num_valid_values, to, smem.values_full[value_place.index]);
    value_place.advance();
  };
  for (RingPlace<kWorkSlots> work_place;; work_place.advance()) {
    work_place.wait_full(smem.work_full);
    const Work work = smem.work[work_place.index];
    arrive_for_warp(smem.work_empty[work_place.index]);
    if (!work.is_any) break;
    const int32_t* const block_table =
        args.batch.block_table + work.tile.sequence * args.batch.block_table_stride;
    const int64_t head_offset = kv_head_offset(args.block_size, args.head_dim, work.kv_head);
    const auto piece_of = [&](int first) {
      return find_piece<kGroups, kConsumers>(args, block_table, block_bytes, head_offset, first,
                                             work.seen.end);
    };
    Piece keys = piece_of(work.first_step);
    for (int first = work.first_step; first >= work.last_step; first -= T::kPositions) {
      const int num_valid = min(T::kPositions, work.seen.end - first);
      key_place.wait_empty(smem.keys_empty);
      bring(keys, num_valid, smem.keys[key_place.index], smem.keys_full[key_place.index]);
      key_place.advance();
      bring_values();
      values = keys;
      values.from += block_bytes / 2;
      num_valid_values = num_valid;
      if (first > work.last_step) keys = piece_of(first - T::kPositions);
    }
  }
  bring_values();
}

// --- Bringing queries
// -----------------------------------------------------------------------------

// Several warps, each some of the rows.
template <int kGroups, int kConsumers>
__device__ __forceinline__ void bring_queries(const PrefillKernelArgs& args,
                                              Smem<kGroups, kConsumers>& smem,
                                              int bringer) {
  using T = Tiling<kGroups, kConsumers>;
  RingPlace<T::kQueryBuffers> place;
  for (RingPlace<kWorkSlots> work_place;; work_place.advance()) {
    work_place.wait_full(smem.work_full);
    const Work work = smem.work[work_place.index];
    arrive_for_warp(smem.work_empty[work_place.index]);
    if (!work.is_any) return;
    place.wait_empty(smem.queries_empty);
    for (int row = bringer * 32; row < T::kTileRows; row += kQueryBringers * 32) {
      const uint32_t to = smem_address(smem.queries[place.index]) +
                          row / kConsumerRows * T::kConsumerQueryBytes + row % kConsumerRows * 128;
      prefill::copy_query_rows<kGroups>(args, work.tile, work.kv_head, row, to, kQueryGroupBytes);
    }
    copy_async_commit();
    copy_async_wait<0>();
    fence_async_shared();
    arrive_for_warp(smem.queries_full[place.index]);
    place.advance();
  }
}

// --- Computing
// ------------------------------------------------------------------------------------

// The operand b[16, N] of wgmma with N along the rows: rows of 64 bf16 in the 128-byte swizzle, one
// per k; eight rows take 1,024 bytes, the next 64 columns are group_bytes on. The next 16 rows are
// at smem + 2,048. Source: PTX ISA 8.x, "strides" of an MN-major operand.
__device__ __forceinline__ uint64_t transposed_descriptor(uint32_t smem, uint32_t group_bytes) {
  constexpr uint64_t kRowGroupStride = 1024 >> 4;
  constexpr uint64_t kSwizzle128 = 1;
  return static_cast<uint64_t>((smem & 0x3FFFF) >> 4) | uint64_t{group_bytes >> 4} << 16 |
         kRowGroupStride << 32 | kSwizzle128 << 62;
}

// Keeps the compiler from moving uses of registers that wgmma reads or writes across this point.
template <int kValues>
__device__ __forceinline__ void pin_registers(float (&values)[kValues]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int kValues>
__device__ __forceinline__ void pin_registers(uint32_t (&values)[kValues][4]) {
#pragma unroll
  for (int i = 0; i < kValues; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) asm volatile("" : "+r"(values[i][j])::"memory");
  }
}

__device__ __forceinline__ void named_barrier_arrive(int id, int num_threads) {
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(num_threads) : "memory");
}
// Named barriers. Whose turn it is: kTurn + c opens when the consumer before has issued its
// products.
constexpr int kTurn = 1;
constexpr int kConsumerDone = 8;  // + c: all warps of consumer c are here

// Queries of a consumer: of each 16 columns, where they lie in shared memory or what the thread
// holds of them.
template <int kGroups, int kConsumers>
struct ConsumerQueries {
  uint32_t smem;
  uint32_t fragments[Tiling<kGroups, kConsumers>::kQueriesInRegisters ? kGroups * 4 : 1][4];

  __device__ __forceinline__ void set(uint32_t address) {
    smem = address;
    if constexpr (Tiling<kGroups, kConsumers>::kQueriesInRegisters) {
      const int row = static_cast<int>(threadIdx.x % 128 / 32 * 16 + threadIdx.x % 16);
      const int chunk = static_cast<int>(threadIdx.x % 32 / 16);
#pragma unroll
      for (int k = 0; k < kGroups * 4; ++k) {
        load_matrix_x4(fragments[k], smem + k / 4 * kQueryGroupBytes + row * 128 +
                                         ((k % 4 * 2 + chunk) ^ (row % 8)) * 16);
      }
    }
  }
};

template <int kGroups, int kConsumers>
__device__ __forceinline__ void issue_scores(
    float (&scores)[Tiling<kGroups, kConsumers>::kPositions / 2],
    const ConsumerQueries<kGroups, kConsumers>& queries,
    uint32_t keys) {
  using T = Tiling<kGroups, kConsumers>;
  const uint64_t b = smem_descriptor(keys);
#pragma unroll
  for (int k = 0; k < kGroups * 4; ++k) {
    const uint64_t b_k = b + (k / 4 * T::kKvGroupBytes + k % 4 * 32) / 16;
    if constexpr (T::kQueriesInRegisters) {
      Wgmma<T::kPositions>::regs_smem(scores, queries.fragments[k], b_k, k > 0);
    } else {
      const uint64_t a = smem_descriptor(queries.smem);
      Wgmma<T::kPositions>::smem_smem(scores, a + (k / 4 * kQueryGroupBytes + k % 4 * 32) / 16, b_k,
                                      k > 0);
    }
  }
  wgmma_commit();
}

template <int kGroups, int kConsumers>
__device__ __forceinline__ void issue_outputs(
    float (&out)[kGroups * 32],
    const uint32_t (&weights)[Tiling<kGroups, kConsumers>::kPositions / 16][4],
    uint32_t values) {
  const uint64_t b = transposed_descriptor(values, Tiling<kGroups, kConsumers>::kKvGroupBytes);
#pragma unroll
  for (int run = 0; run < Tiling<kGroups, kConsumers>::kPositions / 16; ++run) {
    Wgmma<kGroups * 64>::template regs_smem<true>(out, weights[run], b + run * (2048 / 16), true);
  }
  wgmma_commit();
}

template <int kRuns>
__device__ __forceinline__ void pack_weights(const float (&scores)[kRuns * 8],
                                             uint32_t (&weights)[kRuns][4]) {
#pragma unroll
  for (int k = 0; k < kRuns; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weights[k][i] = pack_bf16(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
    }
  }
}

// What a consumer knows of a tile to the end, and while it computes its scores.
struct TileState {
  int work_idx;
  int query_idx;
  prefill::RowPair softmax;
};
struct StepState {
  int first;  // position
  int last_first;
  int window_full;
  int causal_full;
  int positions[2];  // of the thread's two rows
};

template <int kGroups, int kConsumers>
__device__ __forceinline__ void compute(const PrefillKernelArgs& args,
                                        Smem<kGroups, kConsumers>& smem,
                                        int consumer) {
  using T = Tiling<kGroups, kConsumers>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int first_row = consumer * kConsumerRows + static_cast<int>(threadIdx.x % 128 / 32) * 16;
  const int rows[2] = {first_row + lane / 4, first_row + lane / 4 + 8};
  RingPlace<kWorkSlots> work_place;
  RingPlace<T::kQueryBuffers> query_place;
  RingPlace<kStages> key_place;
  RingPlace<kStages> value_place;
  float scores[T::kPositions / 2];
  uint32_t weights[T::kPositions / 16][4];
  float out[kGroups * 32];
  float rescale[2];
  ConsumerQueries<kGroups, kConsumers> queries;
  StepState step;
  TileState tile;  // of `step`
  TileState done;  // the one before

  // Waits for the next tile; false when there is none.
  const auto begin_tile = [&] {
    work_place.wait_full(smem.work_full);
    const Work& work = smem.work[work_place.index];
    if (!work.is_any) return false;
    tile = {.work_idx = work_place.index, .query_idx = query_place.index, .softmax = {}};
    step = {.first = work.first_step,
            .last_first = work.last_step,
            .window_full = work.seen.window_full,
            .causal_full = work.seen.causal_full,
            .positions = {prefill::row_position(work.tile, rows[0], args.group),
                          prefill::row_position(work.tile, rows[1], args.group)}};
    work_place.advance();
    return true;
  };
  // Before a tile's first scores, and after the end of the tile before the last one, through whose
  // place the queries come.
  const auto await_queries = [&] {
    query_place.wait_full(smem.queries_full);
    queries.set(smem_address(smem.queries[query_place.index]) + consumer * T::kConsumerQueryBytes);
    query_place.advance();
  };
  const auto issue_step_scores = [&] {
    wgmma_fence();
    issue_scores<kGroups, kConsumers>(scores, queries, smem_address(smem.keys[key_place.index]));
  };
  const auto release_keys = [&] {
    pin_registers(scores);
    arrive_for_warp(smem.keys_empty[key_place.index]);
    key_place.advance();
  };
  const auto weigh_scores = [&] {
    if (step.first + T::kPositions > step.causal_full || step.first < step.window_full) {
      prefill::mask_scores(scores, step.first + lane % 4 * 2, step.positions, args.window);
    }
    prefill::weigh_scores(scores, tile.softmax, args.scale_log2, rescale);
    pin_registers(scores);
  };
  const auto issue_step_outputs = [&] {
    value_place.wait_full(smem.values_full);
    wgmma_fence();
    issue_outputs<kGroups, kConsumers>(out, weights, smem_address(smem.values[value_place.index]));
  };
  const auto release_values = [&] {
    pin_registers(out);
    pin_registers(weights);
    arrive_for_warp(smem.values_empty[value_place.index]);
    value_place.advance();
  };
  const auto clear_outputs = [&] {
#pragma unroll
    for (int i = 0; i < kGroups * 32; ++i) out[i] = 0;
  };
  // Writes the outputs of a tile whose steps are over, through the place of its queries: a warp
  // through that of its rows, which no other reads unless by wgmma.
  const auto end_tile = [&](const TileState& ended) {
    const Work& work = smem.work[ended.work_idx];
    float reciprocal[2];
    prefill::reciprocal_sums(args, work.tile, work.kv_head, rows, ended.softmax, reciprocal);
    if constexpr (!T::kQueriesInRegisters) named_barrier(kConsumerDone + consumer, 128);
    prefill::store_rows(args, work.tile, work.kv_head, first_row, out, reciprocal,
                        smem.queries[ended.query_idx] + consumer * T::kConsumerQueryBytes +
                            (first_row - consumer * kConsumerRows) * 128,
                        kQueryGroupBytes);
    arrive_for_warp(smem.queries_empty[ended.query_idx]);
    arrive_for_warp(smem.work_empty[ended.work_idx]);
    clear_outputs();
  };

  constexpr int kTurnThreads = 2 * 128;  // who waits and who lets go
  const int next_consumer = (consumer + 1) % kConsumers;
  if (next_consumer == 0) named_barrier_arrive(kTurn + 0, kTurnThreads);
  clear_outputs();
  while (begin_tile()) {
    await_queries();
    key_place.wait_full(smem.keys_full);
    issue_step_scores();
    wgmma_wait<0>();
    release_keys();
    weigh_scores();
    bool is_tile_done = false;  // the weights are the last of `done`, `tile` is another
    // Goes on to the next step, of this tile or the next; false when that has to wait.
    const auto next_step = [&] {
      is_tile_done = step.first == step.last_first;
      if (is_tile_done) {
        done = tile;
        if (T::kQueryBuffers == 1 || !begin_tile()) return false;
      } else {
        step.first -= T::kPositions;
      }
      key_place.wait_full(smem.keys_full);
      return true;
    };
    bool has_next = next_step();
    pack_weights(scores, weights);
    while (has_next) {
      if (is_tile_done) await_queries();
      named_barrier(kTurn + consumer, kTurnThreads);
      issue_step_scores();
      issue_step_outputs();
      named_barrier_arrive(kTurn + next_consumer, kTurnThreads);
      wgmma_wait<1>();
      release_keys();
      weigh_scores();
      const bool ends_tile = is_tile_done;
      const TileState ended = done;
      // This also keeps the compiler from waiting for the outputs before the softmax: it moves
      // nothing across a branch.
      has_next = next_step();
      wgmma_wait<0>();
      release_values();
      if (ends_tile) {
        end_tile(ended);
      } else if (prefill::any_rescale(rescale)) {
#pragma unroll
        for (int i = 0; i < kGroups * 32; ++i) out[i] *= rescale[i / 2 % 2];
      }
      pack_weights(scores, weights);
    }
    issue_step_outputs();
    wgmma_wait<0>();
    release_values();
    end_tile(done);
  }
}

template <int kGroups, int kConsumers>
__global__ void __launch_bounds__(Tiling<kGroups, kConsumers>::kThreads, 1)
    sm90_prefill_kernel(PrefillKernelArgs args) {
  using T = Tiling<kGroups, kConsumers>;
  extern __shared__ __align__(1024) char raw_smem[];
  auto& smem = *reinterpret_cast<Smem<kGroups, kConsumers>*>(raw_smem);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kWorkSlots; ++i) {
      barrier_init(smem_address(&smem.work_full[i]), 1);
      barrier_init(smem_address(&smem.work_empty[i]), 1 + kQueryBringers + kConsumers * 4);
    }
    for (int i = 0; i < T::kQueryBuffers; ++i) {
      barrier_init(smem_address(&smem.queries_full[i]), kQueryBringers);
      barrier_init(smem_address(&smem.queries_empty[i]), kConsumers * 4);
    }
    for (int i = 0; i < kStages; ++i) {
      barrier_init(smem_address(&smem.keys_full[i]), 1);
      barrier_init(smem_address(&smem.keys_empty[i]), kConsumers * 4);
      barrier_init(smem_address(&smem.values_full[i]), 1);
      barrier_init(smem_address(&smem.values_empty[i]), kConsumers * 4);
    }
    barrier_init_fence();
  }
  __syncthreads();
  wait_for_previous_kernels();
  let_next_kernel_start();
  const int warpgroup = static_cast<int>(threadIdx.x) / 128;
  if (warpgroup == 0) {
    give_up_registers<T::kProducerRegisters>();
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (warp == 0) {
      find_work<kGroups, kConsumers>(args, smem);
    } else if (warp == 1) {
      bring_keys_and_values<kGroups, kConsumers>(args, smem);
    } else {
      bring_queries<kGroups, kConsumers>(args, smem, warp - 2);
    }
  } else {
    take_registers<T::kConsumerRegisters>();
    compute<kGroups, kConsumers>(args, smem, warpgroup - 1);
  }
}

template <int kGroups, int kConsumers>
int64_t num_works(const PrefillKernelArgs& args) {
  return max_query_tiles(args, Tiling<kGroups, kConsumers>::kTileRows) * args.num_kv_heads;
}

template <int kGroups, int kConsumers>
void launch_sm90_prefill(const PrefillKernelArgs& args, cudaStream_t stream) {
  using T = Tiling<kGroups, kConsumers>;
  constexpr int64_t kSmemBytes = sizeof(Smem<kGroups, kConsumers>);
  static_assert(kSmemBytes <= 227 * 1024);
  allow_smem(sm90_prefill_kernel<kGroups, kConsumers>, kSmemBytes);
  const int64_t num_blocks =
      std::min<int64_t>(num_works<kGroups, kConsumers>(args), device_traits().num_sms);
  launch(sm90_prefill_kernel<kGroups, kConsumers>,
         {.grid = dim3(static_cast<unsigned>(num_blocks)),
          .block = dim3(T::kThreads),
          .smem_bytes = kSmemBytes},
         stream, args);
}

// Up to 64 columns the softmax takes longer than the products. The registers suffice for three
// consumers that are about it at different times: 480 TFLOP/s instead of 415. But their tiles are
// larger, which counts where blocks get few of them, and where sequences are so short that tiles
// begin and end more than they multiply: with 128 to 256 rows each, two are 2 to 30 % faster. Rows
// are all that is known here; such short chunks of long sequences are taken for short sequences.
bool three_consumers_are_faster(const PrefillKernelArgs& args) {
  constexpr int64_t kFewRows = 512;
  if (args.batch.num_tokens < kFewRows * args.batch.num_seqs) return false;
  constexpr double kSpeedup = 480.0 / 415.0;
  const int64_t num_sms = device_traits().num_sms;
  const int64_t rounds_of_two = ceil_div(num_works<1, 2>(args), num_sms);
  const int64_t rounds_of_three = ceil_div(num_works<1, 3>(args), num_sms);
  return static_cast<double>(rounds_of_three) * 3 <
         static_cast<double>(rounds_of_two) * 2 * kSpeedup;
}

}  // namespace

void sm90_prefill_attention(const PrefillAttentionArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("sm90_prefill_attention");
  const PrefillKernelArgs kernel_args = prefill_kernel_args(args);
  if (kernel_args.batch.num_tokens == 0 || kernel_args.batch.num_seqs == 0) return;
  switch (num_kv_groups(kernel_args.head_dim)) {
    case 1:
      return three_consumers_are_faster(kernel_args)
                 ? launch_sm90_prefill<1, 3>(kernel_args, stream)
                 : launch_sm90_prefill<1, 2>(kernel_args, stream);
    case 2:
      return launch_sm90_prefill<2, 2>(kernel_args, stream);
    case 3:
      return launch_sm90_prefill<3, 2>(kernel_args, stream);
    default:
      return launch_sm90_prefill<4, 2>(kernel_args, stream);
  }
}

}  // namespace augur::cuda
