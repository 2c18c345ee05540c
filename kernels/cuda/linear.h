// linear on CUDA: chooses the kernel by the shape.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/cuda/dense_gemm.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace augur::cuda {

enum class LinearWay : uint8_t {
  kSkinny,      // skinny_linear
  kSm90Skinny,  // sm90_skinny_linear
  kGemm,        // DenseGemm, or linear_plain for what it refuses
};

/// A function of the sizes and alignments of the call alone.
LinearWay choose_linear(const LinearArgs& args, const DeviceTraits& device);

/// Each shape by the way that is fastest for it.
/// Threading and errors as DenseGemm.
class Linear {
 public:
  /// Device memory that the constructor takes; run() takes none.
  static int64_t workspace_bytes() { return DenseGemm::workspace_bytes(); }

  /// See LinearArgs; x is bf16, out f32 or bf16. Zero rows do nothing. Asynchronous on `stream`;
  /// may be captured in a graph.
  void run(const LinearArgs& args, cudaStream_t stream);

 private:
  DenseGemm gemm_;
};

}  // namespace augur::cuda
