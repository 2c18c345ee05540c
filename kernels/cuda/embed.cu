#include "kernels/cuda/embed.h"

#include <string>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/row_access.cuh"
#include "kernels/require.h"

namespace augur::cuda {
namespace {

// One chunk per thread: eight values to embed, one unit to gather. A block stays within a row.
constexpr int kThreads = 256;

// kWidth is 8, or 1 for rows that cannot be read 16 bytes at a time.
template <int kWidth>
__global__ void embed_kernel(EmbedArgs args) {
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t row = blockIdx.x;
  const int64_t col = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kWidth;
  if (col >= args.out.num_cols) return;
  int64_t token = args.token_ids[row];
  if (token < 0) token = args.sampled_ids[~token];
  const auto* const from =
      reinterpret_cast<const __nv_bfloat16*>(args.table.data) + token * args.out.num_cols + col;
  float* const to = row_of<float>(args.out, row) + col;
  if constexpr (kWidth == 8) {
    float values[8];
    load_values(from, values);
    store_values(to, values);
  } else {
    *to = __bfloat162float(*from);
  }
}

// Units are 16 bytes, or single values where rows do not start and end at multiples of that.
template <typename Unit>
__global__ void gather_rows_kernel(const Unit* x,
                                   int64_t x_stride,
                                   const int32_t* rows,
                                   Unit* out,
                                   int64_t out_stride,
                                   int64_t units_per_row) {
  let_next_kernel_start();
  wait_for_previous_kernels();
  const int64_t row = blockIdx.x;
  const int64_t unit = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (unit >= units_per_row) return;
  out[row * out_stride + unit] = x[rows[row] * x_stride + unit];
}

Launch rows_by_chunks(int64_t num_rows, int64_t chunks_per_row) {
  return {.grid = dim3(static_cast<unsigned>(num_rows),
                       static_cast<unsigned>(ceil_div<int64_t>(chunks_per_row, kThreads))),
          .block = dim3(kThreads)};
}

template <typename Unit>
void launch_gather(const GatherRowsArgs& args, cudaStream_t stream) {
  const int64_t value_bytes = dtype_bytes(args.x.dtype);
  const auto units = [&](int64_t values) {
    return values * value_bytes / static_cast<int64_t>(sizeof(Unit));
  };
  const int64_t units_per_row = units(args.out.num_cols);
  launch(gather_rows_kernel<Unit>, rows_by_chunks(args.out.num_rows, units_per_row), stream,
         static_cast<const Unit*>(args.x.data), units(args.x.row_stride), args.rows,
         static_cast<Unit*>(args.out.data), units(args.out.row_stride), units_per_row);
}

}  // namespace

void embed(const EmbedArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("embed");
  const Tensor& out = args.out;
  AUGUR_REQUIRE(out.dtype == DType::kF32 && out.num_cols == args.table.num_cols,
                std::to_string(out.num_cols) + " columns of a table of " +
                    std::to_string(args.table.num_cols));
  if (out.num_rows == 0 || out.num_cols == 0) return;
  const bool is_wide = out.num_cols % 8 == 0 &&
                       has_aligned_rows(args.table.data, out.num_cols * 2) &&
                       has_aligned_rows(out.data, out.row_stride * 4);
  if (is_wide) {
    launch(embed_kernel<8>, rows_by_chunks(out.num_rows, out.num_cols / 8), stream, args);
  } else {
    launch(embed_kernel<1>, rows_by_chunks(out.num_rows, out.num_cols), stream, args);
  }
}

int64_t bytes_moved(const EmbedArgs& args) {
  return args.out.num_rows * (args.out.num_cols * 6 + 4);
}

void gather_rows(const GatherRowsArgs& args, cudaStream_t stream) {
  AUGUR_NVTX_RANGE("gather_rows");
  AUGUR_REQUIRE(args.x.dtype == args.out.dtype && args.x.num_cols == args.out.num_cols,
                "rows of " + std::to_string(args.x.num_cols) + " gathered as rows of " +
                    std::to_string(args.out.num_cols));
  if (args.out.num_rows == 0 || args.out.num_cols == 0) return;
  const int64_t value_bytes = dtype_bytes(args.x.dtype);
  if (args.out.num_cols * value_bytes % 16 == 0 &&
      has_aligned_rows(args.x.data, args.x.row_stride * value_bytes) &&
      has_aligned_rows(args.out.data, args.out.row_stride * value_bytes)) {
    launch_gather<uint4>(args, stream);
  } else if (value_bytes == 4) {
    launch_gather<uint32_t>(args, stream);
  } else {
    launch_gather<uint16_t>(args, stream);
  }
}

int64_t bytes_moved(const GatherRowsArgs& args) {
  return args.out.num_rows * (args.out.num_cols * 2 * dtype_bytes(args.out.dtype) + 4);
}

}  // namespace augur::cuda
