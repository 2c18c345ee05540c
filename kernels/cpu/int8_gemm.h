// Products with int8 weights: a few panels at a time are widened to bf16 in the worker's own
// scratch, which stays in its L2, and multiplied there as bf16 weights are; the sums are then
// multiplied by the scales. The bits are those of a bf16 product with the same whole numbers, so
// nothing depends on how it is cut. From memory come half the bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/gemm.h"

namespace augur::cpu {

/// Scratch of one worker, for weights of up to num_col_tiles.
int64_t widened_bytes(const GemmUnit& unit, int64_t num_col_tiles);

/// unit.multiply of a block whose `weights` (and `up`) are int8 tiles of quantize.h and whose
/// `scales` (and `up_scales`) are given. `widened` is widened_bytes long, 64-byte aligned, and no
/// other thread's.
void multiply_int8(const GemmUnit& unit, const GemmBlock& block, std::byte* widened);

}  // namespace augur::cpu
