// The experts of one MoE layer.
//
// Tokens are sorted by expert, so that every expert's weights are read once however many tokens
// chose it. One loop over (expert, token block, panel block) computes silu(gate x) * (up x), the
// shared expert's included; a second computes the down projections and combines them per token in
// the order of choice. When the gated values outgrow L2, the combination is a loop of its own.
// An expert's format shows only where its weights meet the tokens: int8_gemm.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// See MoeArgs. More than kMaxMoeTokens tokens are computed in passes of that many.
/// Requires that every chosen expert has a slot, and scratch of moe_scratch_bytes, 64-byte
/// aligned.
void moe(const MoeArgs& args, Isa isa, WorkerPool& pool, std::span<std::byte> scratch);

struct MoeLimits {
  int64_t num_tokens = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t shared_intermediate_size = 0;  // 0: no shared expert
  int64_t num_experts = 0;               // of both tables
  int64_t top_k = 0;
  int num_int8_threads = 0;  // that multiply int8 experts; 0: there are none
};
int64_t moe_scratch_bytes(const MoeLimits& limits, Isa isa);

/// Bounds the scratch of long prefills (67 MB of float32 for 8 choices of 2,048 values), while an
/// expert of 128 still gets enough tokens to hide the reading of its weights.
inline constexpr int64_t kMaxMoeTokens = 1024;

}  // namespace augur::cpu
