// The arguments that the MoE and MLP kernels for many tokens share, whatever the device.
//
// A gated MLP over the rows of some experts runs in three steps: gate and up with the activation
// (h = silu(gate x) * (up x), bf16, in the workspace), down (y, one bf16 row per assignment, in the
// workspace), and moe_combine.h (the weighted sum of a token's rows).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/moe_plan.h"
#include "kernels/ops.h"

namespace augur::cuda {

/// One MoE layer. Assignments left out of the plan (expert -1) add nothing.
///   moe         moe.x is bf16; moe.shared is not read: its result comes as shared_out
///   plan        of moe.experts, made for the same table
///   workspace   256-byte aligned; how long, says the function beside the launcher
///   shared_out  [num_tokens, hidden]  f32 or bf16, added to the sum; or absent
struct MoePrefillArgs {
  MoeArgs moe;
  MoePlan plan;
  std::byte* workspace = nullptr;
  Tensor shared_out;
};

/// One gated MLP that every row goes through. mlp.x is bf16.
struct MlpPrefillArgs {
  MlpArgs mlp;
  std::byte* workspace = nullptr;
};

}  // namespace augur::cuda
