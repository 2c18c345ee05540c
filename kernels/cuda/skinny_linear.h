// linear for a few rows, on any device: the weights go from memory to registers, once.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// The largest number of rows: two tiles of eight.
inline constexpr int64_t kMaxSkinnyRows = 16;

/// Whether the kernel takes these: 1 to kMaxSkinnyRows rows, and rows in 16-byte pieces.
bool fits_skinny_linear(const LinearArgs& args);

/// out = x * weight^T + bias for 1 to 16 rows. Sums are float32, in an order that depends on the
/// shape alone: a row of out depends on that row of x and on the number of rows.
///
/// A block computes 16 outputs. Each thread loads 16-byte pieces of the weights straight into what
/// mma takes as its 16-row operand, many before it uses the first, and those of the first round
/// before it waits for the kernels ahead in the stream. Memory-bound: bytes_moved(args) in
/// linear_args.h. Requires fits_skinny_linear(args). Asynchronous on `stream`.
void skinny_linear(const LinearArgs& args, cudaStream_t stream);

}  // namespace augur::cuda
