// The router: which experts each token goes to.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// Up to so many tokens the logits are float32 sums. With more, x and weight are each split into a
/// high and a low bf16 part and the products low * low are left out: relative to |x| |weight| an
/// error of 2^-16 at most.
inline constexpr int64_t kMaxGemvTokens = 4;

/// Bytes of scratch that router() needs for up to max_tokens tokens.
int64_t router_workspace_bytes(int64_t max_tokens, int64_t hidden, int num_experts);

/// The contract is RouterArgs's. Requires num_experts <= 1024, top_k <= 32, and rows of x and
/// weight that start at multiples of 16 bytes where hidden is a multiple of 4.
///   workspace  router_workspace_bytes, 16-byte aligned
/// Asynchronous on `stream`: two or three kernels. With few tokens bound by reading weight (4 B per
/// value), with many by reading x or by the tensor cores: 6 flops per value of x and expert.
void router(const RouterArgs& args, void* workspace, cudaStream_t stream);
int64_t bytes_moved(const RouterArgs& args);

}  // namespace augur::cuda
