// The gate: scores of all experts and the choice of the best. The args: kernels/ops.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/ops.h"

namespace augur::cpu {

/// Bytes of scratch that router needs for models of limits.num_experts experts.
int64_t router_scratch_bytes(const StepLimits& limits, int num_threads);

/// Many tokens are shared out by tokens, few by experts; a logit's sum has one fixed order.
/// `scratch`: router_scratch_bytes(), 64-byte aligned.
/// Requires top_k experts among those of top_groups groups, num_groups to divide num_experts and
/// to be at most 64. A NaN logit makes that token's weights NaN and its choice arbitrary, yet
/// top_k different experts.
/// Decode reads the weights once, 4 B each; prefill is compute-bound, 2 operations per weight and
/// token in float32.
void router(const RouterArgs& args, Isa isa, WorkerPool& pool, std::byte* scratch);

}  // namespace augur::cpu
