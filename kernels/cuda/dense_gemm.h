// linear for many rows, by cuBLASLt.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>

#include "kernels/buffer.h"
#include "kernels/ops.h"

namespace augur::cuda {

/// Owns a cuBLASLt handle, its workspace and the algorithms chosen so far.
///
/// The algorithm is a function of the sizes, strides, types and alignments of the call, as
/// cuBLASLt's heuristic gives it, and only deterministic ones are asked for: the same call gives
/// the same bits, and a row's bits depend only on that row and on the number of rows.
/// Threading: one thread calls; calls on different streams must be ordered, for the workspace.
/// Errors: CudaError with cuBLASLt's name of the status.
class DenseGemm {
 public:
  /// Takes workspace_bytes() of device memory; run() takes none.
  DenseGemm();
  ~DenseGemm();
  DenseGemm(const DenseGemm&) = delete;
  DenseGemm& operator=(const DenseGemm&) = delete;

  static int64_t workspace_bytes();

  /// out = x * weight^T + bias; see LinearArgs. False, and nothing is queued, where cuBLASLt has
  /// no algorithm for these sizes and alignments, or a bias is too long to round. The first call of
  /// a shape asks the heuristic, on the host (tens of microseconds). May be captured in a graph.
  /// bias is added in float32 before the rounding to out's type; for a bf16 out cuBLASLt takes it
  /// as bf16, so it is rounded first: exact for what a bf16 checkpoint holds.
  [[nodiscard]] bool run(const LinearArgs& args, cudaStream_t stream);

 private:
  /// What an algorithm is chosen by.
  struct Problem {
    int64_t num_rows;
    int64_t num_outputs;
    int64_t num_cols;
    int64_t x_stride;
    int64_t out_stride;
    uint32_t x_alignment_bytes;
    uint32_t out_alignment_bytes;
    uint32_t bias_alignment_bytes;  // 0: no bias
    bool is_f32;
    auto operator<=>(const Problem&) const = default;
  };
  struct Descriptors;
  std::optional<cublasLtMatmulAlgo_t> algorithm(const Problem& problem, Descriptors& descriptors);

  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;                                                   // cuBLASLt's
  Buffer rounded_bias_;                                                // of the latest call
  std::map<Problem, std::optional<cublasLtMatmulAlgo_t>> algorithms_;  // empty: there is none
};

}  // namespace augur::cuda
