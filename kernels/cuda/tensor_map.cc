#include "kernels/cuda/tensor_map.h"

#include <cuda_runtime_api.h>

#include <string>

#include "kernels/cuda/check.h"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

constexpr uint32_t kTileCols = 64;  // 128 bytes, the width of the swizzle

using EncodeTiled = decltype(&cuTensorMapEncodeTiled);

// Asked of the runtime, so that programs need not link the driver's library.
EncodeTiled find_encode_tiled() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
  AUGUR_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                              cudaEnableDefault, &found));
#else
  AUGUR_CUDA(
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found));
#endif
  if (found != cudaDriverEntryPointSuccess) {
    throw CudaError("the driver has no cuTensorMapEncodeTiled: it is older than CUDA 12.0");
  }
  return reinterpret_cast<EncodeTiled>(function);
}

}  // namespace

CUtensorMap make_tensor_map(
    const void* data, int64_t num_rows, int64_t num_cols, int64_t row_stride, int tile_rows) {
  static const EncodeTiled encode_tiled = find_encode_tiled();
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(num_cols),
                               static_cast<cuuint64_t>(num_rows)};
  const cuuint64_t stride_bytes[1] = {static_cast<cuuint64_t>(row_stride) * 2};
  const cuuint32_t tile[2] = {kTileCols, static_cast<cuuint32_t>(tile_rows)};
  const cuuint32_t element_strides[2] = {1, 1};
  const CUresult result = encode_tiled(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, stride_bytes, tile,
      element_strides, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  AUGUR_REQUIRE(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled: error " + std::to_string(result) +
                                            " for " + std::to_string(num_rows) + " x " +
                                            std::to_string(num_cols) + " bf16, stride " +
                                            std::to_string(row_stride));
  return map;
}

}  // namespace augur::cuda
