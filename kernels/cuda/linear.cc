#include "kernels/cuda/linear.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/linear_plain.h"
#include "kernels/cuda/skinny_linear.h"
#include "kernels/cuda/sm90_skinny_linear.h"

namespace augur::cuda {
namespace {

constexpr int64_t kStripOutputs = 64;  // of sm90_skinny_linear

}  // namespace

LinearWay choose_linear(const LinearArgs& args, const DeviceTraits& device) {
  // Crossovers measured on an H100 (cuda_linear_bench). Strips of 64 outputs keep the memory busy
  // where there is one for every multiprocessor, or where the rows of x, which every strip reads
  // again, make strips of 16 dear; below 20 MB too few strips are left, and cuBLASLt, which splits
  // the columns, is better. With more than 32 rows that holds up to 64 MB.
  const int64_t weight_bytes = 2 * args.weight.num_rows * args.weight.num_cols;
  const int64_t num_rows = args.x.num_rows;
  if (device.is_hopper() && fits_sm90_skinny_linear(args)) {
    const bool is_strip_each = args.weight.num_rows >= kStripOutputs * int64_t{device.num_sms};
    const int64_t enough_bytes = (num_rows <= 32 ? 20 : 64) * int64_t{1'000'000};
    if (is_strip_each || (num_rows > 8 && weight_bytes >= enough_bytes)) {
      return LinearWay::kSm90Skinny;
    }
  }
  return fits_skinny_linear(args) ? LinearWay::kSkinny : LinearWay::kGemm;
}

void Linear::run(const LinearArgs& args, cudaStream_t stream) {
  check_linear(args);
  if (args.out.num_rows == 0 || args.out.num_cols == 0) return;
  switch (choose_linear(args, device_traits())) {
    case LinearWay::kSkinny:
      return skinny_linear(args, stream);
    case LinearWay::kSm90Skinny:
      return sm90_skinny_linear(
          args, choose_skinny_config(args.x.num_rows, args.out.num_cols, device_traits().num_sms),
          stream);
    case LinearWay::kGemm:
      break;
  }
  if (!gemm_.run(args, stream)) linear_plain(args, stream);
}

}  // namespace augur::cuda
