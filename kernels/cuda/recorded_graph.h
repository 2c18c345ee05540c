// Operations recorded as a CUDA graph.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <memory>

#include "kernels/ops.h"

namespace augur::cuda {

/// Captures what `operations` queues on `stream`, programmatic dependencies between kernels
/// included. run() launches it on `stream`, which outlives it.
std::unique_ptr<RecordedOps> record_graph(const std::function<void()>& operations,
                                          cudaStream_t stream);

}  // namespace augur::cuda
