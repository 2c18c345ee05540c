// The operations of kernels/ops.h on one CUDA device.
#pragma once

#include <memory>
#include <string>

#include "kernels/ops.h"

namespace augur {

/// Devices that can run Augur's kernels (compute capability 8.0 and later); 0 where there is no
/// driver, and in a build without CUDA.
int num_cuda_devices();

/// Why num_cuda_devices() is 0, for people: no driver, no device, too old, or not built in.
std::string why_no_cuda();

/// Requires 0 <= device < num_cuda_devices(). Throws CudaError when the device cannot be used.
std::unique_ptr<Ops> make_cuda_ops(int device = 0);

}  // namespace augur
