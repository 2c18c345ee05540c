// Products of activations with one weight matrix, and the gated MLP made of three.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// See LinearArgs. `scratch` is 64-byte aligned and holds linear_scratch_bytes at least.
/// Bound by memory below about 16 tokens (every weight is read once), by arithmetic above.
void linear(const LinearArgs& args, Isa isa, WorkerPool& pool, std::span<std::byte> scratch);
int64_t linear_scratch_bytes(int64_t num_tokens, int64_t num_cols, Isa isa);

/// See MlpArgs. silu(gate x) * (up x) is rounded to bf16, as an activation.
void mlp(const MlpArgs& args, Isa isa, WorkerPool& pool, std::span<std::byte> scratch);
int64_t mlp_scratch_bytes(int64_t num_tokens,
                          int64_t hidden_size,
                          int64_t intermediate_size,
                          Isa isa);

/// Requires that the three matrices fit each other and `hidden_size`.
void check_mlp(const MlpWeights& weights, int64_t hidden_size);

}  // namespace augur::cpu
