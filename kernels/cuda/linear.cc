#include "kernels/cuda/linear.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear_args.h"
#include "kernels/cuda/linear_plain.h"
#include "kernels/cuda/skinny_linear.h"
#include "kernels/cuda/sm90_skinny_linear.h"

namespace augur::cuda {
namespace {

constexpr int64_t kStripOutputs = 64;       // of sm90_skinny_linear
constexpr int64_t kLongBytes = 64'000'000;  // of weights

}  // namespace

LinearWay choose_linear(const LinearArgs& args, const DeviceTraits& device) {
  // Crossovers measured on an H100 (cuda_linear_bench). Strips of 64 outputs keep the memory busy
  // where most multiprocessors have one. With fewer, those of 16 are better for up to 8 rows; then
  // every strip's reading all of x tells, and wide strips gain again if they are long. With more
  // than 32 rows x is a large part of what a strip reads: only long streams hide its coming late.
  const int64_t num_rows = args.x.num_rows;
  if (device.is_hopper() && fits_sm90_skinny_linear(args)) {
    const bool most_have_strips =
        5 * args.weight.num_rows >= 3 * kStripOutputs * int64_t{device.num_sms};
    const bool is_long = 2 * args.weight.num_rows * args.weight.num_cols >= kLongBytes;
    if ((num_rows <= 32 && most_have_strips) || (num_rows > 8 && is_long)) {
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
