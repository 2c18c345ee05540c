#include "kernels/cuda/linear_args.h"

#include <string>

#include "kernels/require.h"

namespace augur::cuda {
namespace {

std::string shape(int64_t num_rows, int64_t num_cols) {
  return std::to_string(num_rows) + " x " + std::to_string(num_cols);
}

}  // namespace

void check_linear(const LinearArgs& args) {
  AUGUR_REQUIRE(args.x.dtype == DType::kBF16, "x must be bf16");
  AUGUR_REQUIRE(args.out.dtype == DType::kF32 || args.out.dtype == DType::kBF16,
                "out must be f32 or bf16");
  AUGUR_REQUIRE(args.x.num_cols == args.weight.num_cols,
                "x is " + shape(args.x.num_rows, args.x.num_cols) + ", weights are " +
                    shape(args.weight.num_rows, args.weight.num_cols));
  AUGUR_REQUIRE(args.out.num_rows == args.x.num_rows && args.out.num_cols == args.weight.num_rows,
                "out is " + shape(args.out.num_rows, args.out.num_cols) + ", not " +
                    shape(args.x.num_rows, args.weight.num_rows));
  AUGUR_REQUIRE(args.x.row_stride >= args.x.num_cols && args.out.row_stride >= args.out.num_cols,
                "rows overlap");
  AUGUR_REQUIRE(reinterpret_cast<uintptr_t>(args.weight.data) % 256 == 0, "weights are unaligned");
}

bool has_16_byte_rows(const LinearArgs& args) {
  return args.x.num_cols >= 1 && args.x.num_cols % 8 == 0 && args.x.row_stride % 8 == 0 &&
         reinterpret_cast<uintptr_t>(args.x.data) % 16 == 0;
}

int64_t bytes_moved(const LinearArgs& args) {
  return 2 * args.weight.num_rows * args.weight.num_cols + 2 * args.x.num_rows * args.x.num_cols +
         dtype_bytes(args.out.dtype) * args.out.num_rows * args.out.num_cols;
}

double num_flops(const LinearArgs& args) {
  return 2.0 * static_cast<double>(args.weight.num_rows) *
         static_cast<double>(args.weight.num_cols) * static_cast<double>(args.x.num_rows);
}

}  // namespace augur::cuda
