// What this machine can do at most, measured in the same run as what it is compared with.
#pragma once

#include "kernels/cpu/isa.h"
#include "kernels/cpu/worker_pool.h"

namespace augur::cpu {

/// Floating-point operations per second of all the pool's threads in products that never leave
/// the registers, with the multiply instruction of `isa`. 0 for kPortable, which names none.
double peak_flops(Isa isa, WorkerPool& pool);

/// Bytes per second at which the pool's threads read memory far larger than the caches.
double read_bandwidth(WorkerPool& pool);

}  // namespace augur::cpu
