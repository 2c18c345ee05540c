// The products inside router(): internal to it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// How the logits of a call are computed: each block makes a tile of token_tile x expert_tile sums
/// over one slice of the columns. All choices depend on sizes alone.
struct RouterLogitsPlan {
  int token_tile = 0;     // 0: one block per expert, all tokens
  bool is_small = false;  // a slice is one step
  int num_slices = 1;     // of the columns
  int64_t slice_cols = 0;
};
RouterLogitsPlan plan_router_logits(int64_t num_tokens, int64_t hidden, int num_experts);

/// Writes the partial sums [num_slices, num_tokens, num_experts], f32. Requires rows of x and of
/// weight to start at multiples of 16 bytes where hidden is a multiple of 4.
void router_logits(const RouterArgs& args,
                   const RouterLogitsPlan& plan,
                   float* partial,
                   cudaStream_t stream);

}  // namespace augur::cuda
