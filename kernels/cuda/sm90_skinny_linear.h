// linear for few rows on Hopper: the weights stream through shared memory once, at the speed of
// memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "kernels/ops.h"

namespace augur::cuda {

/// How the work is cut. A strip is some outputs, with all their columns; a tile is 64 columns of
/// one.
struct SkinnyConfig {
  int padded_rows = 0;      // 8, 16, 32 or 64: what the rows of x are filled up to
  int strip_outputs = 0;    // 8 to 64, a multiple of 8, and of four per split
  int num_splits = 0;       // blocks of a cluster share the columns of a strip: 1, 2, 4 or 8
  int stage_tiles = 0;      // tiles that are fetched and multiplied together
  int num_stages = 0;       // in flight per block
  int num_late_stages = 0;  // still to come when the next kernel of the stream may start
  int num_blocks = 0;       // without splits a block goes on to further strips
  std::string description() const;
};

/// The largest number of rows.
inline constexpr int64_t kMaxSkinnyRows = 64;

/// Whether the kernel takes these: rows and columns in 16-byte pieces, at most kMaxSkinnyRows rows.
bool fits_skinny_linear(const LinearArgs& args);

/// A function of the shape and the number of multiprocessors alone.
SkinnyConfig choose_skinny_config(int64_t num_rows,
                                  int64_t num_outputs,
                                  int64_t num_cols,
                                  int num_sms);

/// out = x * weight^T + bias for 1 to 64 rows. Sums are float32, in an order that depends on the
/// config alone: a row of out depends on that row of x and on the number of rows.
///
/// Weights are the 64-row operand of wgmma, the rows of x its 8 to 64 columns. A warp fetches tiles
/// of weights before it waits for the kernels ahead in the stream, so the memory is busy while
/// those end. Memory-bound: bytes_moved(args) in linear_args.h.
/// Requires fits_skinny_linear(args) and a device of compute capability 9.0. Asynchronous on
/// `stream`.
void sm90_skinny_linear(const LinearArgs& args, const SkinnyConfig& config, cudaStream_t stream);

}  // namespace augur::cuda
