// The operations in plain float32: the oracle other backends are tested against, and what
// `execution.precision: reference` runs.
//
// Weights are bf16 in the tile layout of kernels/cpu/tile_layout.h; everything else is float32.
// Every sum runs in one fixed order, so a row's result is the same bits in any batch, with any
// number of threads; another instruction set may round differently.
#pragma once

#include <memory>

#include "kernels/ops.h"

namespace augur {

/// Requires num_threads >= 1. Uses the best instruction set of this machine.
std::unique_ptr<Ops> make_reference_ops(int num_threads);

}  // namespace augur
