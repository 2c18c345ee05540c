// The MoE and MLP kernels for every device since compute capability 8.0: any sizes, any number of
// tokens. They serve GPUs before Hopper and shapes that the kernels for Hopper leave out, and are
// what those are tested against.
#pragma once

#include "kernels/cuda/moe_prefill.h"

namespace augur::cuda {

/// Rows of a tile that suit the problem; any other works too.
int moe_portable_tile_rows(int64_t num_tokens, int top_k, int num_experts);

/// Bytes of workspace for both launchers below (top_k is 1 for an MLP).
int64_t moe_portable_workspace_bytes(int64_t num_tokens,
                                     int top_k,
                                     int64_t hidden_size,
                                     int64_t intermediate_size);

/// See ops.h, MoeArgs and MlpArgs. Products of bf16 in float32, by mma.sync; h and y are rounded to
/// bf16. A row's bits depend on that row alone. Asynchronous on `stream`, three launches.
void moe_portable(const MoePrefillArgs& args, cudaStream_t stream);
void mlp_portable(const MlpPrefillArgs& args, cudaStream_t stream);

}  // namespace augur::cuda
