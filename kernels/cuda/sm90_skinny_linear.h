// linear for few rows on Hopper: the weights stream through shared memory once, at the speed of
// memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "kernels/ops.h"

namespace augur::cuda {

/// How the work is cut. A strip is 64 outputs, a tile 64 columns of one.
struct SkinnyConfig {
  int padded_rows = 0;  // 8, 16, 32 or 64: what the rows of x are filled up to
  int num_stages = 0;   // tiles in flight per block
  int num_blocks = 0;   // each computes a strip, then further ones
  std::string description() const;
};

/// The largest number of rows.
inline constexpr int64_t kMaxSm90SkinnyRows = 64;

/// Whether the kernel takes these: 1 to kMaxSm90SkinnyRows rows, and rows in 16-byte pieces.
bool fits_sm90_skinny_linear(const LinearArgs& args);

/// A function of the shape and the number of multiprocessors alone.
SkinnyConfig choose_skinny_config(int64_t num_rows, int64_t num_outputs, int num_sms);

/// out = x * weight^T + bias for 1 to 64 rows. Sums are float32, in the order of the columns: a row
/// of out depends on that row of x alone.
///
/// Weights are the 64-row operand of wgmma, the rows of x its 8 to 64 columns. A warp fetches tiles
/// of weights before it waits for the kernels ahead in the stream, so the memory is busy while
/// those end. Memory-bound: bytes_moved(args) in linear_args.h.
/// Requires fits_sm90_skinny_linear(args) and a device of compute capability 9.0. Asynchronous on
/// `stream`.
void sm90_skinny_linear(const LinearArgs& args, const SkinnyConfig& config, cudaStream_t stream);

}  // namespace augur::cuda
