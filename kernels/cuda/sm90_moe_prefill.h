// The MoE and MLP kernels for many tokens on Hopper: grouped products by wgmma.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cuda/moe_prefill.h"

namespace augur::cuda {

/// How a problem is cut. `tile_rows` is what the plan must be made with.
struct MoePrefillConfig {
  int tile_rows = 0;
  int tile_cols = 0;              // weight rows of one tile: half gate and half up, or down
  int64_t max_tiles = 0;          // of the plan
  int64_t num_gate_up_items = 0;  // tiles by blocks of columns, at most
  int64_t num_down_items = 0;
  bool lays_out_x = false;  // rows of x are copied into tiles first, not gathered by the product
  int64_t workspace_bytes = 0;

  std::string to_string() const;
};
/// Requires hidden_size % 8 == 0 (rows of x are copied 16 bytes at a time).
MoePrefillConfig moe_prefill_config(
    int64_t num_tokens, int top_k, int num_experts, int64_t hidden_size, int64_t intermediate_size);

/// Bytes of workspace for both launchers below (an MLP: top_k and num_experts are 1).
int64_t sm90_moe_prefill_workspace_bytes(
    int64_t num_tokens, int top_k, int num_experts, int64_t hidden_size, int64_t intermediate_size);

/// See ops.h, MoeArgs and MlpArgs. Products of bf16 in float32; h and y are rounded to bf16.
/// Requires Hopper, hidden_size % 8 == 0, rows of x at multiples of 16 bytes, and a plan with the
/// config's tile_rows. A row's bits depend on that row alone. Asynchronous on `stream`:
/// three launches, one more where rows of x are laid out first, one less for an MLP whose result is
/// bf16 at multiples of 16 bytes.
/// Bound: 6 * assignments * hidden * intermediate floating-point operations, or the bytes of the
/// weights of the experts that have rows (below about 130 rows an expert on H100).
void sm90_moe_prefill(const MoePrefillArgs& args, cudaStream_t stream);
void sm90_mlp_prefill(const MlpPrefillArgs& args, cudaStream_t stream);

/// The steps of sm90_moe_prefill alone, to be timed: h from x, y from h, out from y.
void sm90_moe_gate_up(const MoePrefillArgs& args, cudaStream_t stream);
void sm90_moe_down(const MoePrefillArgs& args, cudaStream_t stream);
void sm90_moe_combine(const MoePrefillArgs& args, cudaStream_t stream);

}  // namespace augur::cuda
