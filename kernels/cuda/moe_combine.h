// What the experts made of a token, summed.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/tensor.h"

namespace augur::cuda {

/// out[t] = sum over choices c, in their order, of weights[t, c] * y[t * top_k + c], + shared[t].
/// Sums in float32.
///   y        [num_tokens * top_k, hidden]  bf16; rows 16-byte aligned
///   experts  [num_tokens, top_k]  i32, or null: where -1, the row of y is not read
///   weights  [num_tokens, top_k]  f32, or null: all 1
///   shared   [num_tokens, hidden]  f32 or bf16, or absent
///   out      [num_tokens, hidden]  f32 or bf16
/// Asynchronous on `stream`; deterministic. Memory-bound: see bytes_moved.
struct MoeCombineArgs {
  Tensor y;
  const int32_t* experts = nullptr;
  const float* weights = nullptr;
  int top_k = 1;
  Tensor shared;
  Tensor out;
};
void moe_combine(const MoeCombineArgs& args, cudaStream_t stream);
int64_t bytes_moved(const MoeCombineArgs& args);

}  // namespace augur::cuda
