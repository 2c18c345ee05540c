#include "kernels/cpu/gemm_plan.h"

#include <algorithm>
#include <string>

#include "kernels/require.h"

namespace augur::cpu {
namespace {

// Chunks a thread takes from one loop: enough to even out cores that are slowed by others.
constexpr int64_t kChunksPerThread = 6;
// Below this a copy is faster than waking the other threads for it.
constexpr int64_t kSerialPackBytes = 128 << 10;
constexpr int64_t kTokensPerPack = 32;  // a multiple of every token_group
constexpr int64_t kL2Bytes = 2 << 20;   // of a server's core

}  // namespace

ScratchCarver::ScratchCarver(std::span<std::byte> scratch) : left_(scratch) {
  AUGUR_REQUIRE(reinterpret_cast<uintptr_t>(scratch.data()) % 64 == 0, "scratch is unaligned");
}

std::byte* ScratchCarver::take(int64_t num_bytes) {
  const size_t size = static_cast<size_t>(padded(num_bytes));
  AUGUR_REQUIRE(num_bytes >= 0 && size <= left_.size(),
                "the reserved limits leave " + std::to_string(left_.size()) +
                    " bytes of scratch, this call needs " + std::to_string(num_bytes));
  std::byte* const taken = left_.data();
  left_ = left_.subspan(size);
  return taken;
}

int64_t num_panel_blocks(int64_t num_groups, int64_t num_other, int num_threads) {
  const int64_t wanted = (kChunksPerThread * num_threads + num_other - 1) / num_other;
  return std::min(num_groups, std::max<int64_t>(1, wanted));
}

int64_t tokens_per_block(const GemmUnit& unit, int64_t num_col_tiles) {
  const int64_t num_tokens = unit.block_bytes / (std::max<int64_t>(num_col_tiles, 1) * 64);
  return std::clamp<int64_t>(num_tokens, 32, 256) / 32 * 32;
}

bool is_large_out(int64_t num_tokens, int64_t out_stride, int num_threads) {
  return num_tokens * out_stride * 4 >= kL2Bytes * num_threads;
}

GemmPlan plan_gemm(const GemmUnit& unit,
                   int64_t num_tokens,
                   int64_t num_col_tiles,
                   int64_t num_panels,
                   int64_t panels_per_group,
                   int num_threads) {
  GemmPlan plan;
  plan.num_tokens = num_tokens;
  const int64_t most = tokens_per_block(unit, num_col_tiles);
  plan.num_token_blocks = (num_tokens + most - 1) / most;
  // Blocks of nearly equal size that begin where packed blocks may.
  const int64_t even = (num_tokens + plan.num_token_blocks - 1) / plan.num_token_blocks;
  plan.tokens_per_block = (even + unit.token_group - 1) / unit.token_group * unit.token_group;
  plan.num_token_blocks = (num_tokens + plan.tokens_per_block - 1) / plan.tokens_per_block;
  plan.num_panel_groups = (num_panels + panels_per_group - 1) / panels_per_group;
  plan.num_panel_blocks =
      num_panel_blocks(plan.num_panel_groups, plan.num_token_blocks, num_threads);
  return plan;
}

void set_chunk(const GemmPlan& plan,
               int64_t num_panels,
               int64_t panels_per_group,
               int64_t chunk_idx,
               GemmBlock& block) {
  const int64_t token_block = chunk_idx / plan.num_panel_blocks;
  const int64_t panel_block = chunk_idx % plan.num_panel_blocks;
  block.first_token = token_block * plan.tokens_per_block;
  block.num_tokens = std::min(plan.tokens_per_block, plan.num_tokens - block.first_token);
  const auto boundary = [&](int64_t i) {
    return std::min(num_panels,
                    i * plan.num_panel_groups / plan.num_panel_blocks * panels_per_group);
  };
  block.first_panel = boundary(panel_block);
  block.num_panels = boundary(panel_block + 1) - block.first_panel;
}

void pack_all_tokens(const GemmUnit& unit,
                     const Tensor& x,
                     const int32_t* rows,
                     int64_t num_tokens,
                     std::byte* to,
                     WorkerPool& pool) {
  PackTokensArgs args;
  args.x = static_cast<const Bf16*>(x.data);
  args.x_stride = x.row_stride;
  args.num_cols = x.num_cols;
  args.rows = rows;
  args.num_tokens = num_tokens;
  args.to = to;
  if (num_tokens * x.num_cols * 2 <= kSerialPackBytes) {
    unit.pack_tokens(args);
    return;
  }
  pool.parallel_for((num_tokens + kTokensPerPack - 1) / kTokensPerPack,
                    [&](int64_t chunk_idx, int) {
                      PackTokensArgs part = args;
                      part.first_token = chunk_idx * kTokensPerPack;
                      part.num_tokens = std::min(kTokensPerPack, num_tokens - part.first_token);
                      unit.pack_tokens(part);
                    });
}

}  // namespace augur::cpu
