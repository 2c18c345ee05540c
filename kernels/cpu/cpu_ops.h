// The fast CPU backend: bf16 activations, float32 sums, kernels per instruction set.
#pragma once

#include <memory>
#include <optional>

#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

namespace augur {

/// `num_threads` counts the calling thread; the others are the backend's own, bound to one core
/// each with `pin_threads`. Without `isa` the best of this machine.
/// Requires num_threads >= 1 and has_isa(isa).
/// Results are the same for any number of threads, not for different instruction sets.
std::unique_ptr<Ops> make_cpu_ops(int num_threads,
                                  std::optional<cpu::Isa> isa = {},
                                  bool pin_threads = false);

}  // namespace augur
