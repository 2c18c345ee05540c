// How products are cut into the chunks that workers take, and the packing of their tokens.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/tensor.h"

namespace augur::cpu {

/// Hands out 64-byte aligned pieces of an operation's scratch.
class ScratchCarver {
 public:
  /// Requires 64-byte alignment.
  explicit ScratchCarver(std::span<std::byte> scratch);
  /// Requires that as much is left.
  std::byte* take(int64_t num_bytes);
  template <typename T>
  T* take_array(int64_t count) {
    return reinterpret_cast<T*>(take(count * static_cast<int64_t>(sizeof(T))));
  }
  /// What take(num_bytes) uses up.
  static constexpr int64_t padded(int64_t num_bytes) { return (num_bytes + 63) / 64 * 64; }

 private:
  std::span<std::byte> left_;
};

/// Tokens of one block: enough to use a weight often while it is in L2, few enough that the
/// tokens themselves stay there too. A multiple of every token_group.
int64_t tokens_per_block(const GemmUnit& unit, int64_t num_col_tiles);

/// GemmBlock::is_large_out of an f32 output that num_threads cores write.
bool is_large_out(int64_t num_tokens, int64_t out_stride, int num_threads);

/// Token blocks by panel blocks; chunk_idx = token_block * num_panel_blocks + panel_block.
struct GemmPlan {
  int64_t num_tokens = 0;
  int64_t tokens_per_block = 0;
  int64_t num_token_blocks = 0;
  int64_t num_panel_groups = 0;
  int64_t num_panel_blocks = 0;

  int64_t num_chunks() const { return num_token_blocks * num_panel_blocks; }
};

/// `panels_per_group` panels are never split.
GemmPlan plan_gemm(const GemmUnit& unit,
                   int64_t num_tokens,
                   int64_t num_col_tiles,
                   int64_t num_panels,
                   int64_t panels_per_group,
                   int num_threads);

/// Panel blocks to cut `num_groups` groups into, so that with `num_other` blocks of the other
/// kind each thread gets several chunks.
int64_t num_panel_blocks(int64_t num_groups, int64_t num_other, int num_threads);

/// Sets the tokens and panels of chunk `chunk_idx` in `block`.
void set_chunk(const GemmPlan& plan,
               int64_t num_panels,
               int64_t panels_per_group,
               int64_t chunk_idx,
               GemmBlock& block);

/// Packs the rows of x (see PackTokensArgs::rows), on all threads when that pays.
void pack_all_tokens(const GemmUnit& unit,
                     const Tensor& x,
                     const int32_t* rows,
                     int64_t num_tokens,
                     std::byte* to,
                     WorkerPool& pool);

}  // namespace augur::cpu
