// linear by the plainest kernel that is right for every shape, stride and alignment: the oracle of
// the fast ones, and what runs where they do not fit.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/ops.h"

namespace augur::cuda {

/// out = x * weight^T + bias, summed in float32 in the order of the columns. Any sizes.
/// A row of out depends on that row of x alone. Asynchronous on `stream`.
void linear_plain(const LinearArgs& args, cudaStream_t stream);

}  // namespace augur::cuda
