#include "kernels/cuda/dense_gemm.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "kernels/cuda/handles.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/round_bias.h"

namespace augur::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;  // what NVIDIA advises for Hopper
constexpr int64_t kMaxBias = int64_t{1} << 18;          // outputs that a bias may have

void check_cublas(cublasStatus_t status, const char* call, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw CudaError(std::string(call) + " at " + __FILE__ + ":" + std::to_string(line) + ": " +
                  cublasLtGetStatusName(status) + ", " + cublasLtGetStatusString(status));
}
#define AUGUR_CUBLAS(call) check_cublas((call), #call, __LINE__)

// The power of two, up to 16, that both the start of a matrix and its rows are multiples of.
uint32_t alignment_bytes(const void* data, int64_t stride_bytes) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(data) | static_cast<uint64_t>(stride_bytes);
  return static_cast<uint32_t>(std::min<uint64_t>(bits & -bits, 16));
}

template <typename Value>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, Value value) {
  AUGUR_CUBLAS(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof(value)));
}

template <typename Value>
void set(cublasLtMatmulPreference_t preference,
         cublasLtMatmulPreferenceAttributes_t attribute,
         Value value) {
  AUGUR_CUBLAS(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)));
}

}  // namespace

// cuBLASLt's matrices are column-major: ours are its transposes. out^T [outputs, rows] = weight
// (given transposed) times x^T [cols, rows]. The descriptors live on the stack.
struct DenseGemm::Descriptors {
  Descriptors(const LinearArgs& args, const void* bias) {
    const cudaDataType_t out_type = args.out.dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
    AUGUR_CUBLAS(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    set(&operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (bias != nullptr) {
      set(&operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(&operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
      set(&operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, out_type);
    }
    const auto num_outputs = static_cast<uint64_t>(args.weight.num_rows);
    const auto num_cols = static_cast<uint64_t>(args.x.num_cols);
    const auto num_rows = static_cast<uint64_t>(args.x.num_rows);
    AUGUR_CUBLAS(cublasLtMatrixLayoutInit(&weight, CUDA_R_16BF, num_cols, num_outputs,
                                          args.weight.num_cols));
    AUGUR_CUBLAS(cublasLtMatrixLayoutInit(&x, CUDA_R_16BF, num_cols, num_rows, args.x.row_stride));
    AUGUR_CUBLAS(
        cublasLtMatrixLayoutInit(&out, out_type, num_outputs, num_rows, args.out.row_stride));
  }

  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t weight;
  cublasLtMatrixLayoutOpaque_t x;
  cublasLtMatrixLayoutOpaque_t out;
};

DenseGemm::DenseGemm()
    : workspace_(allocate_device(kWorkspaceBytes)), rounded_bias_(allocate_device(2 * kMaxBias)) {
  AUGUR_CUBLAS(cublasLtCreate(&handle_));
}

DenseGemm::~DenseGemm() {
  const cublasStatus_t status = cublasLtDestroy(handle_);
  if (status != CUBLAS_STATUS_SUCCESS) {
    std::fprintf(stderr, "destroying a cuBLASLt handle: %s\n", cublasLtGetStatusName(status));
  }
}

int64_t DenseGemm::workspace_bytes() {
  return kWorkspaceBytes;
}

std::optional<cublasLtMatmulAlgo_t> DenseGemm::algorithm(const Problem& problem,
                                                         Descriptors& descriptors) {
  const auto known = algorithms_.find(problem);
  if (known != algorithms_.end()) return known->second;
  cublasLtMatmulPreferenceOpaque_t preference;
  AUGUR_CUBLAS(cublasLtMatmulPreferenceInit(&preference));
  set(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  // Parts of a sum are added in float32 and in a fixed order.
  set(&preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  const auto weight_alignment =
      std::min<uint32_t>(16, alignment_bytes(nullptr, 2 * problem.num_cols));
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, weight_alignment);
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, problem.x_alignment_bytes);
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, problem.out_alignment_bytes);
  set(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, problem.out_alignment_bytes);
  cublasLtMatmulHeuristicResult_t result = {};
  int num_results = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, &descriptors.operation, &descriptors.weight, &descriptors.x, &descriptors.out,
      &descriptors.out, &preference, 1, &result, &num_results);
  std::optional<cublasLtMatmulAlgo_t> chosen;
  if (status == CUBLAS_STATUS_SUCCESS && num_results > 0 && result.state == CUBLAS_STATUS_SUCCESS) {
    chosen = result.algo;
  } else if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) {
    AUGUR_CUBLAS(status);
  }
  algorithms_.emplace(problem, chosen);
  return chosen;
}

bool DenseGemm::run(const LinearArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("dense_gemm");
  check_linear(args);
  if (args.out.num_rows == 0 || args.out.num_cols == 0) return true;
  if (args.x.num_cols == 0) return false;
  const bool rounds_bias = args.bias != nullptr && args.out.dtype == DType::kBF16;
  if (rounds_bias && args.out.num_cols > kMaxBias) return false;
  const void* const bias = rounds_bias ? rounded_bias_.data() : static_cast<const void*>(args.bias);
  const Problem problem = {
      .num_rows = args.x.num_rows,
      .num_outputs = args.weight.num_rows,
      .num_cols = args.x.num_cols,
      .x_stride = args.x.row_stride,
      .out_stride = args.out.row_stride,
      .x_alignment_bytes = alignment_bytes(args.x.data, 2 * args.x.row_stride),
      .out_alignment_bytes =
          alignment_bytes(args.out.data, dtype_bytes(args.out.dtype) * args.out.row_stride),
      .bias_alignment_bytes = bias != nullptr ? alignment_bytes(bias, 0) : 0,
      .is_f32 = args.out.dtype == DType::kF32,
  };
  Descriptors descriptors(args, bias);
  const std::optional<cublasLtMatmulAlgo_t> algo = algorithm(problem, descriptors);
  if (!algo) return false;
  if (rounds_bias) {
    round_bias(args.bias, args.out.num_cols, rounded_bias_.data(), stream);
  }
  const float alpha = 1;
  const float beta = 0;
  AUGUR_CUBLAS(cublasLtMatmul(handle_, &descriptors.operation, &alpha, args.weight.data,
                              &descriptors.weight, args.x.data, &descriptors.x, &beta,
                              args.out.data, &descriptors.out, args.out.data, &descriptors.out,
                              &*algo, workspace_.data(), kWorkspaceBytes, stream));
  return true;
}

}  // namespace augur::cuda
