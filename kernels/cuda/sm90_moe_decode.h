// Experts, and gated MLPs, of few tokens (1 to about 128): as fast as the weights can be read.
//
// Two kernels, and a third that sums where a token's experts are computed apart:
//   gate and up  h[assignment][i] = weight * silu(gate x) * (up x)     bf16
//   down         y[assignment][c] = down h                             f32
//   sum          out[token][c] = sum of y over the token's choices, in their order, + shared_out
// A routing weight is folded into h before h is rounded: the rounding is relative, so that it loses
// nothing, and one token's experts become one long product: down then writes `out` itself.
//
// Each block runs through work items of `rows` weight rows by all of K for one tile of tokens. One
// warp streams the weights into a ring of stages by bulk copies, and the tokens' values with them;
// eight warps multiply. The second kernel streams its first weights while the first one still runs.
// Bound: the bytes of the weights of every expert that is chosen, once; see bytes_moved.
//
// Deterministic: an item is summed in one order that only sizes decide, whichever block takes it.
// Needs sm_90a. Source of the maths: Shazeer 2020, arXiv:2002.05202 (SwiGLU).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/cuda/moe_plan.h"
#include "kernels/ops.h"

namespace augur::cuda {

/// How the work is cut up; decided by sizes alone.
struct MoeDecodeConfig {
  int tile_rows = 0;        // tokens of an item at most: 8, 16, 32 or 64
  int gate_up_rows = 0;     // weight rows of an item of each matrix: 16, 32 or 64
  int down_rows = 0;        // 16, 32 or 64
  bool needs_plan = false;  // false: MoeDecodeArgs::plan is not read
  bool is_paired = false;   // blocks of both kernels share each multiprocessor's shared memory

  std::string to_string() const;
};
MoeDecodeConfig moe_decode_config(
    int64_t num_tokens, int top_k, int num_experts, int64_t hidden_size, int64_t intermediate_size);
MoeDecodeConfig mlp_decode_config(int64_t num_tokens,
                                  int64_t hidden_size,
                                  int64_t intermediate_size);

/// Bytes of the workspace for up to num_tokens tokens, 256-byte aligned. What it holds before and
/// after a call does not matter.
int64_t moe_decode_workspace_bytes(int64_t num_tokens,
                                   int top_k,
                                   int64_t hidden_size,
                                   int64_t intermediate_size);

/// Bytes of the state, by which blocks share out the work and see what is done, for up to
/// num_tokens tokens; 256-byte aligned. It is zero before the first call and belongs to these
/// kernels alone from then on. Calls of any sizes within its own may share one, where one stream
/// orders them.
int64_t moe_decode_state_bytes(int64_t num_tokens, int top_k, int64_t intermediate_size);

/// The routed experts, and the sum with the shared expert's result.
///   moe         moe.x bf16; moe.out f32 or bf16; moe.shared is not read
///   shared_out  [num_tokens, hidden]  f32 or bf16, or absent: what the shared expert made
///   plan        of moe.experts, made with config.tile_rows; not read unless config.needs_plan
///   config      moe_decode_config of the sizes
///   workspace   moe_decode_workspace_bytes of the sizes or more
///   state       moe_decode_state_bytes of the sizes or more
struct MoeDecodeArgs {
  MoeArgs moe;
  Tensor shared_out;
  MoePlan plan;
  MoeDecodeConfig config;
  std::byte* workspace = nullptr;
  std::byte* state = nullptr;
};
/// Asynchronous on `stream`.
void sm90_moe_decode(const MoeDecodeArgs& args, cudaStream_t stream);
/// Bytes of weights that the call reads when num_distinct_experts are chosen, and of activations.
int64_t bytes_moved(const MoeDecodeArgs& args, int64_t num_distinct_experts);

/// A dense layer's MLP or a shared expert: mlp.x bf16, mlp.out f32 or bf16.
struct MlpDecodeArgs {
  MlpArgs mlp;
  MoeDecodeConfig config;          // mlp_decode_config of the sizes
  std::byte* workspace = nullptr;  // as for experts with top_k 1
  std::byte* state = nullptr;      // likewise
};
/// Asynchronous on `stream`.
void sm90_mlp_decode(const MlpDecodeArgs& args, cudaStream_t stream);
int64_t bytes_moved(const MlpDecodeArgs& args);

}  // namespace augur::cuda
