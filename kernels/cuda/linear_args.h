// What the ways of computing linear (kernels/ops.h) have in common.
//
// On CUDA x is bf16 and the weights (MatrixUse::kProjection) are bf16, row-major without gaps,
// 256-byte aligned.
#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace augur::cuda {

/// Fails where shapes or types do not fit.
void check_linear(const LinearArgs& args);

/// Whether the rows of x and of the weights, of at least one column, are whole 16-byte pieces.
bool has_16_byte_rows(const LinearArgs& args);

/// Bytes that memory must move: weights and x read once, out written once.
int64_t bytes_moved(const LinearArgs& args);

/// Floating-point operations: two per weight and row.
double num_flops(const LinearArgs& args);

}  // namespace augur::cuda
